use super::{
    lease::Group,
    rows::{AliasEntry, Handling, InboxRow, OutboxEntry, Queue, Row, SagaEntry},
    transaction::WriteLock,
};
use sagabus_core::{AuditEntry, LogPartition, Position, RowTable};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The whole database.
#[derive(Default)]
pub(super) struct Model {
    /// One sequence for the ids of all tables.
    last_id: i64,
    pub(super) inbox: BTreeMap<Handling, InboxRow>,
    /// By (kind, key).
    pub(super) sagas: BTreeMap<(String, String), SagaEntry>,
    /// By (kind, name, value).
    pub(super) aliases: BTreeMap<(String, String, String), AliasEntry>,
    pub(super) outbox: BTreeMap<i64, OutboxEntry>,
    pub(super) due: BTreeMap<RowTable, BTreeMap<i64, Row>>,
    pub(super) queues: BTreeMap<String, Queue>,
    /// In which queue a queue row lies.
    pub(super) queue_of: BTreeMap<i64, String>,
    /// How often, and when last.
    pub(super) attempts: BTreeMap<Handling, (u32, sagabus_core::Timestamp)>,
    /// By endpoint and place.
    pub(super) positions: BTreeMap<(String, LogPartition), Position>,
    /// With the endpoint.
    pub(super) audit: Vec<(String, AuditEntry)>,
    pub(super) groups: BTreeMap<String, Group>,
    /// The application's own rows.
    pub(super) scratch: Arc<BTreeMap<String, Vec<u8>>>,
    /// Who may change them.
    pub(super) write_lock: WriteLock,
    /// The readers to wake once the lock is free, by their keys.
    pub(super) wakes: BTreeSet<String>,
}

impl Model {
    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn table(&mut self, table: RowTable) -> &mut BTreeMap<i64, Row> {
        self.due.entry(table).or_default()
    }

    pub(super) fn insert(&mut self, table: RowTable, row: Row) -> i64 {
        let id = self.next_id();
        self.wake_due(&row.endpoint);
        self.table(table).insert(id, row);
        id
    }

    pub(super) fn wake_due(&mut self, endpoint: &str) {
        self.wakes.insert(due_wake_key(endpoint));
    }

    pub(super) fn wake_queue(&mut self, queue: &str) {
        self.wakes.insert(queue_wake_key(queue));
    }
}

pub(super) fn due_wake_key(endpoint: &str) -> String {
    format!("due:{endpoint}")
}

pub(super) fn queue_wake_key(queue: &str) -> String {
    format!("queue:{queue}")
}
