//! The names of our headers, and which names a user's header cannot have on the wire.

pub(super) use crate::headers::*;

pub(super) const ID: &str = "sagabus-id";
pub(super) const TYPE: &str = "sagabus-type";
pub(super) const CONTENT_TYPE: &str = "content-type";

/// A name that has another meaning on the wire, or that the client cannot carry (its header names are C strings). Such
/// headers travel inside of `sagabus-user`.
pub(super) fn reserved(name: &str) -> bool {
    name.is_empty()
        || name.contains('\0')
        || name.starts_with("sagabus-")
        || matches!(name, COMPACT | CONTENT_TYPE | TRACEPARENT | TRACESTATE)
}
