//! Handlers' own SQL.

use crate::{
    place::{Connection, Own},
    world::{Book, World, messages, policy},
};
use sagabus::{
    prelude::*,
    sqlx::{self, Row},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Add "sql.add"
    Write "sql.write"
    Hold "sql.hold"
}

/// The account's state and its rows must tell the same.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    total: u64,
    count: u64,
}

impl Saga for Account {
    const NAME: &'static str = "account";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key.clone());
    }
}

async fn insert(ctx: &mut Context, owner: &str, n: u64) -> Result {
    let connection = ctx.transaction::<Own>().await?;
    let query = sqlx::query("insert into ledger (owner, n) values ($1, $2)").bind(owner.to_string());
    query.bind(i64::try_from(n).unwrap()).execute(connection).await?;
    Ok(())
}

impl Handle<Add> for Account {
    async fn handle(&mut self, m: Add, ctx: &mut SagaContext) -> Result {
        self.total += m.n;
        self.count += 1;
        insert(ctx, &m.key, m.n).await?;
        if m.n.is_multiple_of(7) && ctx.attempts() == 0 {
            // after its row: that must go too
            return Err(HandlerError::new("the first time"));
        }
        Ok(())
    }
}

async fn write(m: Write, ctx: &mut Context) -> Result {
    insert(ctx, &m.key, m.n).await?;
    if m.n.is_multiple_of(3) && ctx.attempts() == 0 {
        return Err(HandlerError::new("the first time"));
    }
    Ok(())
}

async fn hold(m: Hold, ctx: &mut Context) -> Result {
    m.run.note("hold");
    insert(ctx, &m.key, m.n).await?;
    m.run.until("never").await;
    Ok(())
}

async fn connect(w: &World) -> Connection {
    let mut connection = w.connect().await;
    let sql = "create table if not exists ledger (owner text, n bigint)";
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection
}

/// How many rows an owner has, and their sum.
async fn rows(connection: &mut Connection, owner: &str) -> (u64, u64) {
    let sql = "select count(*), cast(coalesce(sum(n), 0) as bigint) from ledger where owner = $1";
    let row = sqlx::query(sql).bind(owner.to_string()).fetch_one(connection).await.unwrap();
    (u64::try_from(row.get::<i64, _>(0)).unwrap(), u64::try_from(row.get::<i64, _>(1)).unwrap())
}

pub(crate) async fn rows_and_saga_agree_under_conflicts(w: &World) {
    const MESSAGES: u64 = 40;
    let build = || async { w.endpoint("shop").await.saga::<Account>().recoverability(policy(5, &[])) };
    w.store().await;
    let mut connection = connect(w).await;
    // two instances on the same keys
    let (one, two) = (w.start(build().await).await, w.start(build().await).await);
    for n in 1..=MESSAGES {
        for key in ["a", "b"] {
            one.bus().send(Add::new(w.run, key, n)).await.unwrap();
        }
    }
    for key in ["a", "b"] {
        let account = || async {
            let row = w.admin().await.saga("shop/account", key).await.unwrap();
            row.map_or_else(Account::default, |row| serde_json::from_slice(&row.state).unwrap())
        };
        w.eventually("all messages", || async { account().await.count >= MESSAGES }).await;
        let account = account().await;
        assert_eq!((account.count, account.total), (MESSAGES, (1..=MESSAGES).sum()));
        assert_eq!(rows(&mut connection, key).await, (account.count, account.total));
    }
    assert_eq!(one.stats().dead + two.stats().dead, 0, "{:?} {:?}", one.stats(), two.stats());
}

pub(crate) async fn rows_of_a_function_are_written_once(w: &World) {
    w.store().await;
    let mut connection = connect(w).await;
    let shop = w.start(w.endpoint("shop").await.on(write).recoverability(policy(3, &[]))).await;
    for n in 0..30 {
        shop.bus().send(Write::new(w.run, "f", n)).await.unwrap();
    }
    w.eventually("all", || async { shop.stats().handled >= 30 }).await;
    assert_eq!(rows(&mut connection, "f").await, (30, (0..30).sum()));
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.dead), (10, 0), "{stats:?}");
}

pub(crate) async fn a_handler_that_holds_its_transaction_is_failed_and_others_go_on(w: &World) {
    let store = w.impatient_store(Duration::from_millis(150)).await;
    let mut connection = connect(w).await;
    let builder = w.endpoint_on("shop", store).await.on(hold).on(write).saga::<Book>().recoverability(policy(1, &[]));
    let shop = w.start(builder).await;
    shop.bus().send(Hold::new(w.run, "held", 1)).await.unwrap();
    w.noted("hold", 1).await;
    shop.bus().send(Write::new(w.run, "f", 1)).await.unwrap();
    w.eventually("the other's row", || async { shop.stats().handled == 1 }).await;
    w.eventually("its end", || async { shop.stats().dead == 1 }).await;
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].handler.as_str(), letters[0].attempts), ("sql.hold", 2), "{letters:?}");
    assert!(letters[0].detail[0].contains("transaction"), "{letters:?}");
    assert_eq!(w.run.count("hold"), 2);
    assert_eq!((rows(&mut connection, "held").await, rows(&mut connection, "f").await), ((0, 0), (1, 1)));
}
