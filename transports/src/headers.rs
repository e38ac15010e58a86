//! The names of the headers that a broker carries beside the body.

/// The [compact headers](crate::compact_headers).
pub(crate) use crate::compact_headers::NAME as COMPACT;

pub(crate) const INTENT: &str = "sagabus-intent";
pub(crate) const CONVERSATION: &str = "sagabus-conversation-id";
pub(crate) const CAUSATION: &str = "sagabus-causation-id";
pub(crate) const CORRELATION: &str = "sagabus-correlation-id";
pub(crate) const REPLY_TO: &str = "sagabus-reply-to";
pub(crate) const SENT_AT: &str = "sagabus-sent-at";
pub(crate) const EXPIRES_AT: &str = "sagabus-expires-at";
pub(crate) const ORDER_KEY: &str = "sagabus-order-key";
pub(crate) const SAGA: &str = "sagabus-saga";
pub(crate) const ORIGINATOR: &str = "sagabus-originator";
pub(crate) const ATTEMPTS: &str = "sagabus-attempts";
pub(crate) const FIRST: &str = "sagabus-first";
pub(crate) const PROPAGATE: &str = "sagabus-propagate";
pub(crate) const USER: &str = "sagabus-user";
pub(crate) const TRACEPARENT: &str = "traceparent";
pub(crate) const TRACESTATE: &str = "tracestate";
