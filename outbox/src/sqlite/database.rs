use crate::Database;

/// SQLite, for `ctx.transaction::<Sqlite>()`.
#[derive(Debug)]
pub struct Sqlite;

impl Database for Sqlite {
    type Connection = sqlx::SqliteConnection;
    const NAME: &'static str = "sqlite";
}
