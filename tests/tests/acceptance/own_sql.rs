//! Handlers' own SQL.

use crate::{
    fixture::{Entry, Fixture, Ledger, messages, policy},
    own_database::{self, Connection, Own},
};
use sagabus::{
    Runtime,
    prelude::*,
    sqlx::{self, Row},
    store::memory::MemoryStore,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

messages! {
    Add "sql.add"
    Write "sql.write"
    Hold "sql.hold"
    Leave "sql.leave"
}

/// The account's state and its rows must tell the same. A row's number comes from the state: of a stale state that was
/// committed there would be two rows of one number.
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

async fn insert(ctx: &mut Context, owner: &str, number: u64, n: u64) -> Result {
    let connection = ctx.transaction::<Own>().await?;
    let query = sqlx::query("insert into posting (owner, number, n) values ($1, $2, $3)").bind(owner.to_string());
    query.bind(i64::try_from(number)?).bind(i64::try_from(n)?).execute(connection).await?;
    Ok(())
}

impl Handle<Add> for Account {
    async fn handle(&mut self, m: Add, ctx: &mut SagaContext) -> Result {
        self.total += m.n;
        self.count += 1;
        insert(ctx, &m.key, self.count, m.n).await?;
        if m.n.is_multiple_of(7) && ctx.attempts() == 0 {
            // after its row: that must go too
            return Err(HandlerError::new("the first time"));
        }
        Ok(())
    }
}

async fn write(m: Write, ctx: &mut Context) -> Result {
    insert(ctx, &m.key, 0, m.n).await?;
    if m.n.is_multiple_of(3) && ctx.attempts() == 0 {
        return Err(HandlerError::new("the first time"));
    }
    Ok(())
}

async fn hold(m: Hold, ctx: &mut Context) -> Result {
    m.run.note("hold");
    insert(ctx, &m.key, 0, m.n).await?;
    m.run.until("never").await;
    Ok(())
}

async fn leave(m: Leave, ctx: &mut Context) -> Result {
    ctx.send(Entry::new(m.run, "sent", m.n));
    m.run.note("left");
    Ok(())
}

async fn record(m: Entry, _: &mut Context) -> Result {
    m.run.note(format!("recorded {}", m.key));
    Ok(())
}

/// A connection of one's own, with a table of one's own.
pub(crate) async fn connect(f: &Fixture) -> Connection {
    let mut connection = f.connect().await;
    let sql = "create table if not exists posting (owner text, number bigint, n bigint)";
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection
}

/// How many rows an owner has, and their sum.
pub(crate) async fn rows(connection: &mut Connection, owner: &str) -> (u64, u64) {
    let sql = "select count(*), cast(coalesce(sum(n), 0) as bigint) from posting where owner = $1";
    let row = sqlx::query(sql).bind(owner.to_string()).fetch_one(connection).await.unwrap();
    (u64::try_from(row.get::<i64, _>(0)).unwrap(), u64::try_from(row.get::<i64, _>(1)).unwrap())
}

pub(crate) async fn rows_and_saga_agree_under_conflicts(f: &Fixture) {
    const MESSAGES: u64 = 40;
    let build = || async { f.endpoint("shop").await.saga::<Account>().recoverability(policy(5, &[])) };
    f.store().await;
    let mut connection = connect(f).await;
    // two instances on the same keys
    let (one, two) = (f.start(build().await).await, f.start(build().await).await);
    for n in 1..=MESSAGES {
        for key in ["a", "b"] {
            one.bus().send(Add::new(f.run, key, n)).await.unwrap();
        }
    }
    for key in ["a", "b"] {
        let account = || async {
            let row = f.admin().await.saga("shop/account", key).await.unwrap();
            row.map_or_else(Account::default, |row| serde_json::from_slice(&row.state).unwrap())
        };
        f.eventually("all messages", || async { account().await.count >= MESSAGES }).await;
        let account = account().await;
        assert_eq!((account.count, account.total), (MESSAGES, (1..=MESSAGES).sum()));
        assert_eq!(rows(&mut connection, key).await, (account.count, account.total));
        for column in ["number", "n"] {
            let sql = format!("select {column} from posting where owner = $1 order by {column}");
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(key);
            let values: Vec<i64> = query.fetch_all(&mut connection).await.unwrap();
            assert_eq!(values, (1..=MESSAGES as i64).collect::<Vec<_>>(), "{column} of {key}");
        }
    }
    assert_eq!(one.stats().dead + two.stats().dead, 0, "{:?} {:?}", one.stats(), two.stats());
}

pub(crate) async fn rows_of_a_function_are_written_once(f: &Fixture) {
    f.store().await;
    let mut connection = connect(f).await;
    let shop = f.start(f.endpoint("shop").await.on(write).recoverability(policy(3, &[]))).await;
    for n in 0..30 {
        shop.bus().send(Write::new(f.run, "f", n)).await.unwrap();
    }
    f.eventually("all", || async { shop.stats().handled >= 30 }).await;
    assert_eq!(rows(&mut connection, "f").await, (30, (0..30).sum()));
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.dead), (10, 0), "{stats:?}");
}

pub(crate) async fn a_handler_that_holds_its_transaction_is_failed_and_others_go_on(f: &Fixture) {
    let store = f.impatient_store(Duration::from_millis(150)).await;
    let mut connection = connect(f).await;
    let builder = f.endpoint_on("shop", store).await.on(hold).on(write).saga::<Ledger>().recoverability(policy(1, &[]));
    let shop = f.start(builder).await;
    shop.bus().send(Hold::new(f.run, "held", 1)).await.unwrap();
    f.noted("hold", 1).await;
    shop.bus().send(Write::new(f.run, "f", 1)).await.unwrap();
    f.eventually("the other's row", || async { shop.stats().handled == 1 }).await;
    f.eventually("its end", || async { shop.stats().dead == 1 }).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].handler.as_str(), letters[0].attempts), ("sql.hold", 2), "{letters:?}");
    assert!(letters[0].detail[0].contains("transaction"), "{letters:?}");
    assert_eq!(f.run.count("hold"), 2);
    assert_eq!((rows(&mut connection, "held").await, rows(&mut connection, "f").await), ((0, 0), (1, 1)));
}

/// A constraint of the user's own table is the handler's failure, not the store's: it is counted, and ends.
pub(crate) async fn a_conflict_in_own_rows_is_the_handlers_failure(f: &Fixture) {
    f.store().await;
    let mut connection = connect(f).await;
    for sql in ["create unique index posting_n on posting (n)", "insert into posting values ('another', 1, 8)"] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    let shop = f.start(f.endpoint("shop").await.saga::<Account>()).await;
    shop.bus().send(Add::new(f.run, "k", 8)).await.unwrap();
    shop.bus().send(Add::new(f.run, "k", 9)).await.unwrap();
    f.eventually("both ends", || async { shop.stats().dead == 1 && shop.stats().handled == 1 }).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("handler failed", 4));
    assert!(letters[0].detail.iter().any(|text| text.to_lowercase().contains("unique")), "{letters:?}");
    assert_eq!((rows(&mut connection, "another").await, rows(&mut connection, "k").await), ((1, 8), (1, 9)));
    let row = f.admin().await.saga("shop/account", "k").await.unwrap().unwrap();
    let account: Account = serde_json::from_slice(&row.state).unwrap();
    assert_eq!((account.count, account.total), (1, 9));
}

/// The commit is kept waiting by a lock in the store's database; the queues lie in another place, where nothing is in
/// the way.
pub(crate) async fn nothing_leaves_before_the_commit(f: &Fixture) {
    let recorder = Endpoint::builder("recorder").store(Arc::new(MemoryStore::new(Runtime::system())));
    f.start(recorder.transport(f.transport().await).on(record)).await;
    let sender = Endpoint::builder("sender").transport(f.transport().await).route::<Entry>("recorder");
    let sender = sender.build().await.unwrap();
    let shop = f.start(f.endpoint("shop").await.on(leave).route::<Entry>("recorder")).await;
    let mut connection = connect(f).await;
    let lock = own_database::hold_commits(&mut connection).await;
    sender.bus().send_with(Leave::new(f.run, "k", 1), SendOptions::new().to("shop")).await.unwrap();
    f.noted("left", 1).await;
    // another message overtakes it on the same queues, so that there was time enough to leave
    sender.bus().send(Entry::new(f.run, "beside", 1)).await.unwrap();
    f.noted("recorded beside", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(f.run.count("recorded sent"), 0, "it left before its transaction committed");
    lock.rollback().await.unwrap();
    f.noted("recorded sent", 1).await;
    f.settled(&shop, "shop").await;
    assert_eq!(f.run.count("left"), 1);
}
