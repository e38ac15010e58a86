//! The example's own rows, in the store's database: where each order stands, and who did what to it.
//!
//! The ledger has no unique constraint and nobody looks before writing: only the bus sees to it that nothing is there
//! twice. Anyone with sqlite3 can check.

use crate::{
    database::{Database, in_handler, on_either},
    event_log,
};
use sagabus::{
    prelude::*,
    sqlx::{self, Row},
};
use std::collections::BTreeMap;

/// Notes where an order stands, in the transaction of the handler that decided it.
pub(crate) async fn set_status(ctx: &mut Context, order: u64, status: &str) -> Result {
    let id = i64::try_from(order).permanent()?;
    let text = "UPDATE orders SET status = $1 WHERE id = $2";
    if in_handler!(ctx, sqlx::query(text).bind(status).bind(id)) != 1 {
        return Err(HandlerError::permanent(format!("a message of order {order}, which was never placed")));
    }
    Ok(())
}

/// Adds a line to the ledger, in the transaction of the handler whose doing it is.
pub(crate) async fn enter(ctx: &mut Context, order: u64, entry: &str, amount: i64) -> Result {
    let message = ctx.message_id().to_string();
    let id = i64::try_from(order).permanent()?;
    let text = "INSERT INTO ledger (order_id, entry, amount, message_id) VALUES ($1, $2, $3, $4)";
    in_handler!(ctx, sqlx::query(text).bind(id).bind(entry).bind(amount).bind(message));
    event_log::say(ctx, order, entry);
    Ok(())
}

/// How many orders there are, and how many of them are final.
pub(crate) async fn progress(database: &Database) -> sqlx::Result<(u64, u64)> {
    let text = "SELECT count(*), count(CASE WHEN status IN ('confirmed', 'cancelled') THEN 1 END) FROM orders";
    let (placed, finished): (i64, i64) = on_either!(database, pool => sqlx::query_as(text).fetch_one(pool).await?);
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok((count(placed), count(finished)))
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
pub(crate) async fn all(database: &Database) -> sqlx::Result<BTreeMap<u64, Order>> {
    let mut orders = BTreeMap::new();
    on_either!(database, pool => {
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
    });
    Ok(orders)
}
