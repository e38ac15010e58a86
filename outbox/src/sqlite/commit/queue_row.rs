//! Queue rows to insert.

use sagabus_core::Outgoing;
use std::sync::Arc;

/// A row for a queue.
pub(super) struct QueueInsert<'a> {
    pub(super) queue: Arc<str>,
    pub(super) outgoing: &'a Outgoing,
    /// The sender drew this id and has not sent it before: see [`sagabus_core::UnitOfWork::fresh_ids`].
    pub(super) fresh_id: bool,
}

/// What became of destinations.
#[derive(Default)]
pub(super) struct Routed<'a> {
    pub(super) rows: Vec<QueueInsert<'a>>,
    /// Sends whose queue does not exist, by their place in the list.
    pub(super) unknown: Vec<usize>,
}
