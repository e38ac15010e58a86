//! Own SQL of the cases, on PostgreSQL.

use sagabus::sqlx::{self, Connection as _, Executor as _, Postgres as Driver, Transaction};

pub(crate) use sagabus::prelude::Postgres as Own;
pub(crate) type Connection = sqlx::PgConnection;

/// A connection of one's own to the store's database.
pub(crate) async fn connect(url: &str) -> Connection {
    Connection::connect(url).await.unwrap()
}

/// A transaction that writes.
pub(crate) async fn begin(connection: &mut Connection) -> Transaction<'_, Driver> {
    connection.begin().await.unwrap()
}

/// While it is open, no unit is committed to the store.
pub(crate) async fn hold_commits(connection: &mut Connection) -> Transaction<'_, Driver> {
    let mut transaction = begin(connection).await;
    transaction.execute("lock table inbox in share mode").await.unwrap();
    transaction
}
