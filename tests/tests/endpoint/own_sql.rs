//! SQL of the handlers' own, and sends in a caller's own transaction.

use crate::{
    bed::{Bed, Seen, admin, eventually, start},
    place::{Own, Place},
};
use sagabus::{SendOptions, prelude::*, sqlx};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor};
use std::{collections::BTreeSet, sync::Mutex};

#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "own.pay")]
struct Pay {
    account: u64,
    n: u64,
    fails: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    payments: u64,
}

impl Saga for Account {
    const NAME: &'static str = "account";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Pay>(|m| m.account);
    }
}

/// The row's number comes from the saga's state: a stale state that committed would make two rows of one number.
impl Handle<Pay> for Account {
    async fn handle(&mut self, m: Pay, ctx: &mut SagaContext) -> Result {
        self.payments += 1;
        let payment = i64::try_from(self.payments)?;
        let connection = ctx.transaction::<Own>().await?;
        sqlx::query("insert into payment (account, number, n) values ($1, $2, $3)")
            .bind(i64::try_from(m.account)?)
            .bind(payment)
            .bind(i64::try_from(m.n)?)
            .execute(&mut *connection)
            .await?;
        if ctx.attempts() < m.fails {
            return Err(HandlerError::new("after the row was written"));
        }
        ctx.send(Seen(m.n.to_string()));
        Ok(())
    }
}

async fn rows_of_a_handlers_own_commit_with_it(bed: Bed) {
    const MESSAGES: u64 = 60;
    let recorder = bed.recorder().await;
    let mut sql = bed.place.connect().await;
    sql.execute("create table payment (account bigint, number bigint, n bigint)").await.unwrap();
    let nodes =
        [start(bed.endpoint("bank").saga::<Account>()).await, start(bed.endpoint("bank").saga::<Account>()).await];
    for n in 0..MESSAGES {
        nodes[0].bus().send(Pay { account: n % 2, n, fails: u32::from(n % 9 == 0) }).await.unwrap();
    }
    eventually("all are recorded", || async {
        let seen = bed.seen().len() as u64;
        if seen >= MESSAGES { Ok(()) } else { Err(format!("{seen} of {MESSAGES}")) }
    })
    .await;
    for node in &nodes {
        bed.quiet(node).await;
    }
    let rows: Vec<(i64, i64, i64)> =
        sqlx::query_as("select account, number, n from payment order by n").fetch_all(&mut sql).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), (0..MESSAGES as i64).collect::<Vec<_>>());
    for account in 0..2 {
        let mut numbers: Vec<i64> = rows.iter().filter(|row| row.0 == account).map(|row| row.1).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=MESSAGES as i64 / 2).collect::<Vec<_>>(), "account {account}");
        let saga = admin(&nodes[0]).saga("bank/account", &account.to_string()).await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Account>(&saga.state).unwrap().payments, MESSAGES / 2);
    }
    assert_eq!(bed.seen().len() as u64, MESSAGES);
    sql.close().await.unwrap();
    for node in nodes {
        node.stop().await.unwrap();
    }
    recorder.stop().await.unwrap();
}

/// A constraint of the user's own table is the handler's failure, not the store's: it is counted, and ends.
async fn a_conflict_in_own_rows_is_the_handlers_failure(bed: Bed) {
    let recorder = bed.recorder().await;
    let mut sql = bed.place.connect().await;
    sql.execute("create table payment (account bigint, number bigint, n bigint unique)").await.unwrap();
    sql.execute("insert into payment values (99, 1, 7)").await.unwrap();
    let bank = start(bed.endpoint("bank").saga::<Account>()).await;
    bank.bus().send(Pay { account: 1, n: 7, fails: 0 }).await.unwrap();
    bank.bus().send(Pay { account: 1, n: 8, fails: 0 }).await.unwrap();
    let letter = bed.dead_letters(&bank, "bank", 1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.attempts), ("handler failed", 4));
    assert!(letter.detail.iter().any(|text| text.to_lowercase().contains("unique")), "{:?}", letter.detail);
    bed.expect(&bank, &["8"]).await;
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("select account, n from payment order by n").fetch_all(&mut sql).await.unwrap();
    assert_eq!(rows, [(99, 7), (1, 8)]);
    sql.close().await.unwrap();
    bank.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_send_in_the_callers_transaction_leaves_if_that_commits(bed: Bed) {
    let recorder = bed.recorder().await;
    let sender = start(bed.endpoint("sender")).await;
    let mut sql = bed.place.connect().await;
    sql.execute("create table business (n bigint)").await.unwrap();
    for (n, commit) in [(1i64, false), (2, true), (3, false), (4, true)] {
        let mut transaction = Place::begin(&mut sql).await;
        sqlx::query("insert into business values ($1)").bind(n).execute(&mut *transaction).await.unwrap();
        sender.bus().send_in(&mut *transaction, Seen(format!("sent {n}"))).await.unwrap();
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    bed.expect(&sender, &["sent 2", "sent 4"]).await;
    let rows: Vec<(i64,)> = sqlx::query_as("select n from business order by n").fetch_all(&mut sql).await.unwrap();
    assert_eq!(rows, [(2,), (4,)]);
    sql.close().await.unwrap();
    sender.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "own.hold")]
struct Hold {
    run: String,
}

/// The runs whose handler is done.
static HANDLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

async fn hold(m: Hold, ctx: &mut Context) -> Result {
    ctx.send(Seen("after the commit".into()));
    HANDLED.lock().unwrap().insert(m.run);
    Ok(())
}

/// The commit is kept waiting by a lock in the store's database; the queues lie in another one, where nothing is in the way.
async fn nothing_leaves_before_the_commit(bed: Bed) {
    let recorder = bed.recorder_elsewhere().await;
    let sender = bed.sender().build().await.unwrap();
    let shop = start(bed.endpoint("shop").on(hold)).await;
    let mut sql = bed.place.connect().await;
    let lock = Place::hold(&mut sql).await;
    let run = uuid::Uuid::now_v7().to_string();
    sender.bus().send_with(Hold { run: run.clone() }, SendOptions::new().to("shop")).await.unwrap();
    eventually("the handler is done", || async {
        if HANDLED.lock().unwrap().contains(&run) { Ok(()) } else { Err("it has not run".into()) }
    })
    .await;
    // another message overtakes it on the same queues, so that there was time enough to leave
    sender.bus().send(Seen("beside".into())).await.unwrap();
    eventually("the other message is through", || async {
        if bed.seen().contains(&"beside".to_string()) { Ok(()) } else { Err(format!("{:?}", bed.seen())) }
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(bed.seen(), ["beside"], "it left before its transaction committed");
    lock.rollback().await.unwrap();
    bed.expect(&shop, &["after the commit", "beside"]).await;
    sql.close().await.unwrap();
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

mod held {
    // only where the queues are elsewhere can a message leave without its commit
    on_split_databases!(nothing_leaves_before_the_commit);
    use super::nothing_leaves_before_the_commit;
}

on_databases!(
    rows_of_a_handlers_own_commit_with_it,
    a_conflict_in_own_rows_is_the_handlers_failure,
    a_send_in_the_callers_transaction_leaves_if_that_commits,
);
