//! The names of our headers, and which names a user's header cannot have on the wire.

pub(super) use crate::stamp::NAME as STAMP;

/// How the property `app-id` begins of what we have sent; the [stamp](crate::stamp) follows.
pub(super) const OURS: &str = "sagabus;";

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

/// A name that has another meaning on the wire, to us or to the broker (`CC` and `BCC` are routing instructions), or
/// that AMQP cannot carry. Such headers travel inside of `sagabus-user`.
pub(super) fn reserved(name: &str) -> bool {
    name.is_empty()
        || name.len() > 255
        || name.starts_with("x-")
        || name.starts_with("sagabus-")
        || matches!(name, STAMP | "CC" | "BCC" | TRACEPARENT | TRACESTATE)
}

/// What the broker adds while it dead-letters and redelivers.
pub(super) fn brokers_own(name: &str) -> bool {
    ["x-death", "x-first-death", "x-last-death", "x-delivery-count", "x-acquired-count"]
        .iter()
        .any(|own| name.starts_with(own))
}
