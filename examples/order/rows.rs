//! The example's own rows, in the store's database: where each order stands, and who did what to it.
//!
//! The ledger has no unique constraint and nobody looks before writing: only the bus sees to it that nothing is there
//! twice. Anyone with sqlite3 can check.

use crate::diary;
use sagabus::{
    prelude::*,
    sqlx::{
        self, Row, SqlitePool,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
};
use std::{collections::BTreeMap, str::FromStr, time::Duration};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, status TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS ledger (
        order_id INTEGER NOT NULL, entry TEXT NOT NULL, amount INTEGER NOT NULL, message_id TEXT NOT NULL
    );";

/// For reading, and for placing orders. Handlers use their own transactions instead.
pub(crate) async fn open(url: &str) -> sqlx::Result<SqlitePool> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // longer than any other process holds the file, even one that is stopped and continued
        .busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    Ok(pool)
}

/// Notes where an order stands, in the transaction of the handler that decided it.
pub(crate) async fn set_status(ctx: &mut Context, order: u64, status: &str) -> Result {
    let connection = ctx.transaction::<Sqlite>().await?;
    let done = sqlx::query("UPDATE orders SET status = ? WHERE id = ?")
        .bind(status)
        .bind(i64::try_from(order).permanent()?)
        .execute(connection)
        .await?;
    if done.rows_affected() != 1 {
        return Err(HandlerError::permanent(format!("a message of order {order}, which was never placed")));
    }
    Ok(())
}

/// Adds a line to the ledger, in the transaction of the handler whose doing it is.
pub(crate) async fn enter(ctx: &mut Context, order: u64, entry: &str, amount: i64) -> Result {
    let message = ctx.message_id().to_string();
    let connection = ctx.transaction::<Sqlite>().await?;
    sqlx::query("INSERT INTO ledger (order_id, entry, amount, message_id) VALUES (?, ?, ?, ?)")
        .bind(i64::try_from(order).permanent()?)
        .bind(entry)
        .bind(amount)
        .bind(message)
        .execute(connection)
        .await?;
    diary::say(ctx, order, entry);
    Ok(())
}

/// How many orders there are, and how many of them are final.
pub(crate) async fn progress(pool: &SqlitePool) -> sqlx::Result<(u64, u64)> {
    let row =
        sqlx::query("SELECT count(*), count(CASE WHEN status IN ('confirmed', 'cancelled') THEN 1 END) FROM orders")
            .fetch_one(pool)
            .await?;
    let count = |at: usize| row.try_get::<i64, _>(at).map(|n| u64::try_from(n).unwrap_or(0));
    Ok((count(0)?, count(1)?))
}

/// One order, with its ledger.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) status: String,
    /// How often each entry is there.
    pub(crate) entries: BTreeMap<String, u64>,
}

impl Order {
    pub(crate) fn count(&self, entry: &str) -> u64 {
        self.entries.get(entry).copied().unwrap_or(0)
    }
}

/// Everything, for the check at the end. A ledger line without its order gets a status of `none`.
pub(crate) async fn all(pool: &SqlitePool) -> sqlx::Result<BTreeMap<u64, Order>> {
    let mut orders = BTreeMap::new();
    for row in sqlx::query("SELECT id, status FROM orders").fetch_all(pool).await? {
        let id = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        orders.insert(id, Order { status: row.try_get(1)?, entries: BTreeMap::new() });
    }
    let ledger = "SELECT order_id, entry, count(*) FROM ledger GROUP BY order_id, entry";
    for row in sqlx::query(ledger).fetch_all(pool).await? {
        let id = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        let order = orders.entry(id).or_insert_with(|| Order { status: "none".into(), entries: BTreeMap::new() });
        order.entries.insert(row.try_get(1)?, u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0));
    }
    Ok(orders)
}
