//! The embedded set-ups: memory and SQLite, with queue and store in one database and in two.

use sagabus::{
    Runtime,
    ports::{Store, Transport},
    sqlx::{self, Connection as _},
    store::{
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    transport::{
        memory::MemoryBroker,
        sql::{SqlOptions, SqlTransport},
    },
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// For SQL of one's own.
pub(crate) use sagabus::prelude::Sqlite as Own;
pub(crate) type Connection = sqlx::SqliteConnection;
/// Begins a transaction that writes.
pub(crate) const BEGIN: &str = "begin immediate";

pub(crate) enum Setup {
    Memory { joined: bool },
    Sqlite { joined: bool },
}

impl Setup {
    pub(crate) fn memory_joined() -> Self {
        Self::Memory { joined: true }
    }
    pub(crate) fn memory_split() -> Self {
        Self::Memory { joined: false }
    }
    pub(crate) fn sqlite_joined() -> Self {
        Self::Sqlite { joined: true }
    }
    pub(crate) fn sqlite_split() -> Self {
        Self::Sqlite { joined: false }
    }
}

pub(crate) struct Place {
    setup: Setup,
    memory: MemoryStore,
    broker: MemoryBroker,
    directory: PathBuf,
}

impl Place {
    pub(crate) fn new(setup: Setup) -> Self {
        let runtime = Runtime::system();
        let directory = std::env::temp_dir().join(format!("sagabus-acceptance-{}", runtime.uuid()));
        if matches!(setup, Setup::Sqlite { .. }) {
            std::fs::create_dir(&directory).unwrap();
        }
        Self { setup, memory: MemoryStore::new(runtime.clone()), broker: MemoryBroker::new(runtime), directory }
    }

    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.setup, Setup::Memory { joined: true } | Setup::Sqlite { joined: true })
    }

    fn url(&self, file: &str) -> String {
        format!("sqlite://{}", self.directory.join(file).display())
    }

    /// Not synced to disk: no test here cuts the power.
    async fn open(&self, file: &str, options: SqliteOptions) -> Arc<dyn Store> {
        let store = SqliteStore::open(&self.url(file), options.volatile()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    /// A new handle on the one store, as another process has it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match self.setup {
            Setup::Memory { .. } => Arc::new(self.memory.open_again()),
            Setup::Sqlite { .. } => self.open("store.db", SqliteOptions::default()).await,
        }
    }

    /// The same; a handler may hold its transaction for so long only.
    pub(crate) async fn impatient_store(&self, limit: Duration) -> Arc<dyn Store> {
        let mut options = SqliteOptions::default();
        options.transaction_limit = limit;
        self.open("store.db", options).await
    }

    /// A new handle on what carries the messages.
    pub(crate) async fn transport(&self) -> Arc<dyn Transport> {
        let queues = match self.setup {
            Setup::Memory { joined: false } => return Arc::new(self.broker.transport()),
            Setup::Memory { joined: true } | Setup::Sqlite { joined: true } => self.store().await,
            Setup::Sqlite { joined: false } => self.open("bus.db", SqliteOptions::default()).await,
        };
        Arc::new(SqlTransport::new(queues.queues().unwrap(), SqlOptions::default()))
    }

    /// A connection of one's own to the store's database.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.url("store.db")).await.unwrap()
    }

    /// After the test. The directory goes in any case.
    pub(crate) async fn remove(&self) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        // there is none for the memory set-ups
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
