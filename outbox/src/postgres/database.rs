//! The database of this store, as a type.

/// PostgreSQL, for [`TransactionExt::transaction`](crate::TransactionExt::transaction).
#[derive(Debug)]
pub struct Postgres;

impl crate::Database for Postgres {
    type Connection = sqlx::PgConnection;
    const NAME: &'static str = "postgres";
}
