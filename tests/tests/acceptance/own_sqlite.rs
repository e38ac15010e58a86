//! Own SQL of the cases, on SQLite.

use sagabus::sqlx::{self, Connection as _, Sqlite as Driver, Transaction};
use std::time::Duration;

pub(crate) use sagabus::prelude::Sqlite as Own;
pub(crate) type Connection = sqlx::SqliteConnection;

/// A connection of one's own to the store's database.
pub(crate) async fn connect(url: &str) -> Connection {
    let options: sqlx::sqlite::SqliteConnectOptions = url.parse().unwrap();
    Connection::connect_with(&options.create_if_missing(true).busy_timeout(Duration::from_secs(20))).await.unwrap()
}

/// A transaction that writes.
pub(crate) async fn begin(connection: &mut Connection) -> Transaction<'_, Driver> {
    connection.begin_with("begin immediate").await.unwrap()
}

/// While it is open, no unit is committed to the store.
pub(crate) async fn hold_commits(connection: &mut Connection) -> Transaction<'_, Driver> {
    begin(connection).await
}
