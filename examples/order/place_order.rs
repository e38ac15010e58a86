//! Places the orders: the customers.

use crate::{database::Database, event_log, messages::OrderPlaced, options::Options, rows, scenario, stop::Stop};
use sagabus::{Bus, sqlx};
use std::{error::Error, ops::RangeInclusive, time::Duration};

/// How many orders share a transaction when nobody watches: one commit each would be most of the work.
const TOGETHER: u64 = 50;

/// Places the orders that are not placed yet, in order.
pub(crate) async fn place(bus: &Bus, pool: &Database, options: &Options, stop: &Stop) -> Result<(), Box<dyn Error>> {
    let together = if options.pace.is_zero() { TOGETHER } else { 1 };
    let mut next = 1;
    while next <= options.orders && !stop.is_wanted() {
        let last = options.orders.min(next + together - 1);
        if place_some(bus, pool, options, next..=last).await? {
            stop.sleep(options.pace).await;
            while !stop.is_wanted() && is_full(pool, options.window).await? {
                stop.sleep(Duration::from_millis(5)).await;
            }
        }
        next = last + 1;
    }
    Ok(())
}

async fn is_full(pool: &Database, window: u64) -> sqlx::Result<bool> {
    let (placed, finished) = rows::progress(pool).await?;
    Ok(placed.saturating_sub(finished) >= window)
}

/// Each order's row and its event in one transaction: both are there or neither, so a second start changes nothing.
/// Answers whether any was new.
async fn place_some(
    bus: &Bus,
    pool: &Database,
    options: &Options,
    orders: RangeInclusive<u64>,
) -> Result<bool, Box<dyn Error>> {
    let mut placed = Vec::new();
    // a statement for each database: their connections have different types
    macro_rules! place {
        ($transaction:expr) => {{
            let mut transaction = $transaction;
            for order in orders {
                let text = "INSERT INTO orders (id, status) VALUES ($1, 'placed') ON CONFLICT DO NOTHING";
                let done = sqlx::query(text).bind(i64::try_from(order)?).execute(&mut *transaction).await?;
                if done.rows_affected() == 1 {
                    let amount = scenario::amount(options.seed, order);
                    let pay_within_ms = u64::try_from(options.timeout.as_millis())?;
                    bus.publish_in(&mut *transaction, OrderPlaced { order, amount, pay_within_ms }).await?;
                    placed.push(order);
                }
            }
            transaction.commit().await?;
        }};
    }
    match pool {
        Database::Sqlite(pool) => place!(pool.begin_with("BEGIN IMMEDIATE").await?),
        #[cfg(feature = "postgres")]
        Database::Postgres(pool) => place!(pool.begin().await?),
    }
    for order in &placed {
        event_log::placed(*order);
        event_log::line("customer", *order, "places an order");
    }
    Ok(!placed.is_empty())
}
