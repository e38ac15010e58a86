//! The names of our headers, and which names a user's header cannot have on the wire.

pub(super) use crate::headers::*;

/// How the property `app-id` begins of what we have sent; the [compact headers](crate::compact_headers) follow.
pub(super) const OURS: &str = "sagabus;";

/// A name that has another meaning on the wire, to us or to the broker (`CC` and `BCC` are routing instructions), or
/// that AMQP cannot carry. Such headers travel inside of `sagabus-user`.
pub(super) fn reserved(name: &str) -> bool {
    name.is_empty()
        || name.len() > 255
        || name.starts_with("x-")
        || name.starts_with("sagabus-")
        || matches!(name, COMPACT | "CC" | "BCC" | TRACEPARENT | TRACESTATE)
}

/// What the broker adds while it dead-letters and redelivers.
pub(super) fn brokers_own(name: &str) -> bool {
    ["x-death", "x-first-death", "x-last-death", "x-delivery-count", "x-acquired-count"]
        .iter()
        .any(|own| name.starts_with(own))
}
