//! An open write transaction, and the announcements to make after it has committed.

use super::shared::FileState;
use crate::wakeups::WakeKey;
use sagabus_core::Timestamp;
use sqlx::SqliteConnection;
use std::{collections::HashSet, sync::Arc};

/// An open transaction of the writer. Dropping it closes the connection, which rolls back.
pub(crate) struct Tx {
    pub(crate) connection: SqliteConnection,
    pub(crate) shared: Arc<FileState>,
    /// The database's clock when the transaction began.
    pub(crate) now: Timestamp,
    /// Whether the running operation stands behind the savepoint `s`, to which it may roll back.
    pub(crate) with_savepoints: bool,
    pub(crate) announcements: Announcements,
}

/// The effects of a transaction that others wait for.
#[derive(Default)]
pub(crate) struct Announcements {
    /// Where rows were added.
    pub(crate) wake_keys: HashSet<WakeKey>,
    /// It carries units.
    pub(crate) has_units: bool,
    /// It removed outbox rows.
    pub(crate) deleted_sent: bool,
    /// It declared a queue, which is known to exist only after the commit.
    pub(crate) declared_queue: bool,
    /// About how many rows it wrote.
    pub(crate) row_count: usize,
}

/// The context of applying units: an open transaction on any connection, ours or a caller's own.
pub(crate) struct WriteContext<'a> {
    pub(crate) connection: &'a mut SqliteConnection,
    pub(crate) shared: &'a FileState,
    pub(crate) now: Timestamp,
    pub(crate) announcements: &'a mut Announcements,
}

impl Tx {
    pub(crate) fn new(
        connection: SqliteConnection,
        shared: Arc<FileState>,
        now: Timestamp,
        with_savepoints: bool,
    ) -> Self {
        Self { connection, shared, now, with_savepoints, announcements: Announcements::default() }
    }

    pub(crate) fn context(&mut self) -> WriteContext<'_> {
        WriteContext {
            connection: &mut self.connection,
            shared: &self.shared,
            now: self.now,
            announcements: &mut self.announcements,
        }
    }
}

impl Announcements {
    pub(crate) fn queue(&mut self, name: &Arc<str>) {
        self.wake_keys.insert(WakeKey::Queue(Arc::clone(name)));
    }

    pub(crate) fn due(&mut self, endpoint: &Arc<str>) {
        self.wake_keys.insert(WakeKey::Due(Arc::clone(endpoint)));
    }
}
