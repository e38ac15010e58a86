//! The names of our headers, and which names a user's header cannot have on the wire.

pub(super) use crate::stamp::NAME as STAMP;

pub(super) const ID: &str = "sagabus-id";
pub(super) const TYPE: &str = "sagabus-type";
pub(super) const CONTENT_TYPE: &str = "content-type";
pub(super) const INTENT: &str = "sagabus-intent";
pub(super) const CONVERSATION: &str = "sagabus-conversation-id";
pub(super) const CAUSATION: &str = "sagabus-causation-id";
pub(super) const CORRELATION: &str = "sagabus-correlation-id";
pub(super) const REPLY_TO: &str = "sagabus-reply-to";
pub(super) const SENT_AT: &str = "sagabus-sent-at";
pub(super) const EXPIRES_AT: &str = "sagabus-expires-at";
pub(super) const ORDER_KEY: &str = "sagabus-order-key";
pub(super) const SAGA: &str = "sagabus-saga";
pub(super) const ORIGINATOR: &str = "sagabus-originator";
pub(super) const ATTEMPTS: &str = "sagabus-attempts";
pub(super) const FIRST: &str = "sagabus-first";
pub(super) const PROPAGATE: &str = "sagabus-propagate";
pub(super) const USER: &str = "sagabus-user";
pub(super) const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";

/// A name that has another meaning on the wire, or that the client cannot carry (its header names are C strings). Such
/// headers travel inside of `sagabus-user`.
pub(super) fn reserved(name: &str) -> bool {
    name.is_empty()
        || name.contains('\0')
        || name.starts_with("sagabus-")
        || matches!(name, STAMP | CONTENT_TYPE | TRACEPARENT | TRACESTATE)
}
