//! An open write transaction, and what is to be told after it has committed.

use super::{bells::Place, open::Shared};
use sagabus_core::Timestamp;
use sqlx::SqliteConnection;
use std::{collections::HashSet, sync::Arc};

/// An open transaction of the writer. Dropping it closes the connection, which rolls back.
pub(crate) struct Tx {
    pub(crate) connection: SqliteConnection,
    pub(crate) shared: Arc<Shared>,
    /// The database's clock when the transaction began.
    pub(crate) now: Timestamp,
    /// Whether the running operation stands behind the savepoint `s`, to which it may roll back.
    pub(crate) careful: bool,
    pub(crate) notes: Notes,
}

/// What a transaction did that others wait for.
#[derive(Default)]
pub(crate) struct Notes {
    /// Where rows were added.
    pub(crate) places: HashSet<Place>,
    /// A topic was published: rows may have been added to any queue.
    pub(crate) any_queue: bool,
    /// It carries units.
    pub(crate) units: bool,
    /// It removed outbox rows.
    pub(crate) sent: bool,
    /// It declared a queue, which is known to exist only after the commit.
    pub(crate) declared: bool,
    /// About how many rows it wrote.
    pub(crate) rows: usize,
}

/// What applying needs: an open transaction on any connection, ours or a caller's own.
pub(crate) struct Desk<'a> {
    pub(crate) connection: &'a mut SqliteConnection,
    pub(crate) shared: &'a Shared,
    pub(crate) now: Timestamp,
    pub(crate) notes: &'a mut Notes,
}

impl Tx {
    pub(crate) fn new(connection: SqliteConnection, shared: Arc<Shared>, now: Timestamp, careful: bool) -> Self {
        Self { connection, shared, now, careful, notes: Notes::default() }
    }

    pub(crate) fn desk(&mut self) -> Desk<'_> {
        Desk { connection: &mut self.connection, shared: &self.shared, now: self.now, notes: &mut self.notes }
    }
}

impl Notes {
    pub(crate) fn queue(&mut self, name: &Arc<str>) {
        self.places.insert(Place::Queue(Arc::clone(name)));
    }

    pub(crate) fn due(&mut self, endpoint: &Arc<str>) {
        self.places.insert(Place::Due(Arc::clone(endpoint)));
    }
}
