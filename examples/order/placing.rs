//! The customers, and waiting for the last of them.

use crate::{diary, fate, messages::OrderPlaced, options::Options, rows, stop::Stop};
use sagabus::{Bus, sqlx::SqlitePool};
use std::{error::Error, time::Duration};

/// Places the orders that are not placed yet, in order.
pub(crate) async fn place(bus: &Bus, pool: &SqlitePool, options: &Options, stop: &Stop) -> Result<(), Box<dyn Error>> {
    let (mut placed, _) = rows::progress(pool).await?;
    for order in 1..=options.orders {
        if stop.is_wanted() {
            return Ok(());
        }
        if !place_one(bus, pool, options, order).await? {
            continue;
        }
        placed += 1;
        stop.sleep(options.pace).await;
        // asking takes time: once in a while is enough
        while placed % (options.window / 4).max(1) == 0
            && !stop.is_wanted()
            && is_full(pool, options.window).await?
        {
            stop.sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

async fn is_full(pool: &SqlitePool, window: u64) -> sagabus::sqlx::Result<bool> {
    let (placed, finished) = rows::progress(pool).await?;
    Ok(placed.saturating_sub(finished) >= window)
}

/// The order's row and its event in one transaction: both are there or neither, and a second start changes nothing.
async fn place_one(bus: &Bus, pool: &SqlitePool, options: &Options, order: u64) -> Result<bool, Box<dyn Error>> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let done = sagabus::sqlx::query("INSERT INTO orders (id, status) VALUES (?, 'placed') ON CONFLICT DO NOTHING")
        .bind(i64::try_from(order)?)
        .execute(&mut *transaction)
        .await?;
    let is_new = done.rows_affected() == 1;
    if is_new {
        let event = OrderPlaced {
            order,
            amount: fate::amount(options.seed, order),
            pay_within_ms: u64::try_from(options.timeout.as_millis())?,
        };
        bus.publish_in(&mut *transaction, event).await?;
    }
    transaction.commit().await?;
    if is_new {
        diary::placed(order);
        diary::line("customer", order, "places an order");
    }
    Ok(is_new)
}
