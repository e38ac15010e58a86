use sagabus_core::{Envelope, InstanceId, MessageId, NodeId, Outgoing, SagaRow, TimerId, Timestamp};
use std::{collections::BTreeSet, sync::Arc};

/// (endpoint, handler, message): what inbox and attempts are about.
pub(super) type Handling = (Arc<str>, Arc<str>, MessageId);

pub(super) struct InboxRow {
    pub(super) at: Timestamp,
    /// Its id says nothing about its age: it counts as a row of `inbox_misc`.
    pub(super) misc: bool,
}

pub(super) struct SagaEntry {
    pub(super) row: SagaRow,
    /// Completed, and kept until then.
    pub(super) keep: Option<Timestamp>,
}

pub(super) struct AliasEntry {
    pub(super) key: String,
    pub(super) instance: InstanceId,
}

pub(super) struct OutboxEntry {
    pub(super) endpoint: Arc<str>,
    pub(super) node: NodeId,
    pub(super) outgoing: Outgoing,
}

/// A row that is a delivery of its own: of `timer`, `retry`, `parked` or `dead_letter`.
pub(super) struct Row {
    pub(super) endpoint: Arc<str>,
    pub(super) handler: Arc<str>,
    pub(super) due: Timestamp,
    /// Grows when the row is moved.
    pub(super) token: i64,
    pub(super) shard: u16,
    pub(super) attempts: u32,
    /// The order key, of a retry or of a message that waits for an earlier one of the key.
    pub(super) key: Option<String>,
    pub(super) message: Envelope,
    pub(super) more: More,
}

/// What only rows of one table have.
pub(super) enum More {
    Timer(TimerId),
    Retry,
    /// Parked for a saga of this kind and key.
    ParkedForSaga(Arc<str>, String),
    /// Parked until no earlier message of its order key is left.
    ParkedForKey,
    DeadLetter {
        at: Timestamp,
        reason: String,
        detail: Vec<String>,
        retrying: bool,
    },
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) rows: std::collections::BTreeMap<i64, sagabus_core::QueueRow>,
    /// Message ids that were enqueued, for as long as the horizon.
    pub(super) seen: std::collections::BTreeMap<MessageId, Timestamp>,
    pub(super) topics: BTreeSet<String>,
}
