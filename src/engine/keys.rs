//! The keys of the engine's tables.

use sagabus_core::{MessageId, RowGate};
use std::sync::Arc;

/// Names a unit within this engine; grows in the order of arrival.
pub(crate) type UnitId = u64;

/// The key of a lane: messages of one saga run one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) kind: Arc<str>,
    pub(crate) key: Arc<str>,
}

/// Identifies a message and handler that may be in flight only once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum GateKey {
    /// With the attempts before: without a store, a message that is tried again later is a copy, which may come before
    /// the original is through. With a store there are none.
    Inbox(Arc<str>, MessageId, u32),
    Row(RowGate),
}
