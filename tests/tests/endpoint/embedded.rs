//! The embedded backends: memory and SQLite, with queue and store in one database and in two.

use sagabus::sqlx::{self, Connection as _, Sqlite as Driver, SqliteConnection, Transaction};
use std::{path::PathBuf, time::Duration};

/// For SQL of one's own.
pub(crate) use sagabus::prelude::Sqlite as Own;
pub(crate) type Connection = SqliteConnection;

/// What carries the messages and what holds the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MemoryJoined,
    MemorySplit,
    SqliteJoined,
    SqliteSplit,
}

/// Where a test's databases are. They are gone with it.
pub(crate) struct Place {
    kind: Kind,
    id: String,
    dir: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let dir = matches!(kind, Kind::SqliteJoined | Kind::SqliteSplit).then(|| {
            let dir = std::env::temp_dir().join(format!("sagabus-acceptance-{id}"));
            std::fs::create_dir_all(&dir).expect("a directory");
            dir
        });
        Self { kind, id, dir }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{name}.db")))
    }

    pub(crate) fn url(&self, name: &str) -> String {
        match self.file(name) {
            Some(file) => format!("sqlite://{}", file.display()),
            None => format!("memory://{}-{name}", self.id),
        }
    }

    pub(crate) fn is_split(&self) -> bool {
        matches!(self.kind, Kind::MemorySplit | Kind::SqliteSplit)
    }

    /// A connection of one's own to the store's database.
    pub(crate) async fn connect(&self) -> Connection {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.file("shop").expect("a set-up on SQLite"))
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(20));
        Connection::connect_with(&options).await.unwrap()
    }

    /// While it is open, no unit is committed to the store.
    pub(crate) async fn hold(connection: &mut Connection) -> Transaction<'_, Driver> {
        Self::begin(connection).await
    }

    /// A transaction that writes.
    pub(crate) async fn begin(connection: &mut Connection) -> Transaction<'_, Driver> {
        connection.begin_with("begin immediate").await.unwrap()
    }

    /// After the test. The directory goes in any case.
    pub(crate) async fn remove(&self) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            // what the endpoints still hold open goes with the process
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
