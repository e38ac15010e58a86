//! PostgreSQL: a row and its event, or neither ("listen to yourself"); and a saga whose state is that row.
//!
//! `SAGABUS_POSTGRES_URL=postgres://user:password@host/database cargo run --example own_row --features postgres`
//!
//! It places three orders, one of them in a transaction that is rolled back, and ends when the other two are paid. The
//! orders are the application's own table; the saga keeps nothing of its own but its place in the conversation.

#![allow(clippy::disallowed_methods, reason = "a program of its own: it waits in real time")]

use sagabus::{
    prelude::*,
    sqlx::{self, Connection as _, PgConnection},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "own_row.order_placed")]
struct OrderPlaced {
    order: i64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "own_row.charge")]
struct Charge {
    order: i64,
    amount: i64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "own_row.charged")]
struct Charged {
    order: i64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "own_row.unpaid")]
struct Unpaid {
    order: i64,
}

/// No field: what there is to know about an order stands in its row.
#[derive(Default, Serialize, Deserialize)]
struct Fulfilment {}

impl Saga for Fulfilment {
    const NAME: &'static str = "fulfilment";
    type Key = i64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<OrderPlaced>(|m| m.order);
        r.continued_by::<Charged>(|m| m.order);
        r.timeout::<Unpaid>();
    }
}

/// One step of an order, in the handler's own transaction: it commits with what the handler sends, or not at all. The row
/// is locked, for others write to this table too.
async fn step(ctx: &mut SagaContext, order: i64, from: &str, to: &str) -> Result<Option<i64>> {
    let connection = ctx.transaction::<Postgres>().await?;
    let row: Option<(i64, String)> =
        sqlx::query_as("select amount, status from own_row_order where id = $1 for update")
            .bind(order)
            .fetch_optional(&mut *connection)
            .await?;
    let Some((amount, status)) = row else { return Ok(None) };
    if status != from {
        return Ok(None);
    }
    let update = sqlx::query("update own_row_order set status = $2 where id = $1").bind(order).bind(to);
    update.execute(&mut *connection).await?;
    Ok(Some(amount))
}

impl Handle<OrderPlaced> for Fulfilment {
    async fn handle(&mut self, m: OrderPlaced, ctx: &mut SagaContext) -> Result {
        if let Some(amount) = step(ctx, m.order, "placed", "charging").await? {
            ctx.send(Charge { order: m.order, amount });
            ctx.timeout(Duration::from_secs(60), Unpaid { order: m.order });
        }
        Ok(())
    }
}

impl Handle<Charged> for Fulfilment {
    async fn handle(&mut self, m: Charged, ctx: &mut SagaContext) -> Result {
        step(ctx, m.order, "charging", "paid").await?;
        ctx.complete();
        Ok(())
    }
}

impl Handle<Unpaid> for Fulfilment {
    async fn handle(&mut self, m: Unpaid, ctx: &mut SagaContext) -> Result {
        step(ctx, m.order, "charging", "unpaid").await?;
        ctx.complete();
        Ok(())
    }
}

async fn charge(m: Charge, ctx: &mut Context) -> Result {
    println!("order {}: {} are charged", m.order, m.amount);
    ctx.send(Charged { order: m.order });
    Ok(())
}

/// What a web handler would do: the row and the event, in the caller's own transaction.
async fn place(connection: &mut PgConnection, bus: &Bus, order: i64, fails: bool) -> Result<(), Failed> {
    let mut transaction = connection.begin().await?;
    let row = sqlx::query("insert into own_row_order (id, amount, status) values ($1, $2, 'placed')");
    row.bind(order).bind(order * 10).execute(&mut *transaction).await?;
    bus.publish_in(&mut *transaction, OrderPlaced { order }).await?;
    if fails {
        println!("order {order}: rolled back, so nobody hears of it");
        transaction.rollback().await?;
    } else {
        transaction.commit().await?;
    }
    Ok(())
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let url = std::env::var("SAGABUS_POSTGRES_URL").map_err(|_| "SAGABUS_POSTGRES_URL names no server")?;
    let mut connection = PgConnection::connect(&url).await?;
    let table = "drop table if exists own_row_order; \
                 create table own_row_order (id bigint primary key, amount bigint not null, status text not null)";
    sqlx::raw_sql(table).execute(&mut connection).await?;
    // a schema of this run's own: orders have the same numbers every time
    let join = if url.contains('?') { '&' } else { '?' };
    let schema = format!("own_row_{}", std::process::id());
    let shop = Endpoint::builder("shop")
        .transport(format!("{url}{join}schema={schema}"))
        .saga::<Fulfilment>()
        .on(charge)
        .route::<Charge>("shop")
        .route::<Charged>("shop");
    let running = shop.build().await?.start().await?;
    for (order, fails) in [(1, false), (2, true), (3, false)] {
        place(&mut connection, &running.bus(), order, fails).await?;
    }
    let count = "select count(*), count(*) filter (where status = 'paid') from own_row_order";
    let mut paid = (0, 0);
    for _ in 0..500 {
        paid = sqlx::query_as::<_, (i64, i64)>(count).fetch_one(&mut connection).await?;
        if paid == (2, 2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await?;
    let end = format!("drop table own_row_order; set client_min_messages = warning; drop schema {schema} cascade");
    sqlx::raw_sql(sqlx::AssertSqlSafe(end)).execute(&mut connection).await?;
    if paid != (2, 2) {
        return Err(format!("{} orders, {} of them paid: two and two were expected", paid.0, paid.1).into());
    }
    println!("two orders, both paid");
    Ok(())
}
