//! Handlers' own SQL: sharing a commit, and holding it for too long.

use super::bed::{Bed, letters};
use crate::sqlite::SqliteOptions;
use sagabus_core::{InstanceId, Outcome, Store as _, Transaction};
use sqlx::{Connection as _, SqliteConnection};
use std::time::Duration;

fn raw(transaction: &mut Box<dyn Transaction>) -> &mut SqliteConnection {
    transaction.raw().downcast_mut().unwrap()
}

async fn put(transaction: &mut Box<dyn Transaction>, value: i64) {
    sqlx::query("insert into own values (?)").bind(value).execute(raw(transaction)).await.unwrap();
}

async fn table(bed: &Bed) {
    sqlx::query("create table own (value integer)").execute(&mut bed.stranger().await).await.unwrap();
}

async fn rows(bed: &Bed) -> Vec<i64> {
    sqlx::query_scalar("select value from own order by value").fetch_all(&mut bed.stranger().await).await.unwrap()
}

#[tokio::test]
async fn many_share_a_commit_but_no_failure() {
    let bed = Bed::new().await;
    table(&bed).await;
    let life = InstanceId(bed.runtime.uuid());
    assert_eq!(bed.commit(vec![bed.create("k", life)]).await, "A");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let unit = if n % 3 == 0 { bed.update("k", life, 77) } else { bed.unit() };
        let (store, batch) = (bed.store.clone(), bed.batch(vec![unit]));
        tasks.spawn(async move {
            let mut transaction = store.begin().await.unwrap();
            put(&mut transaction, n).await;
            // dropped, finished in vain, or finished
            if n % 3 == 1 {
                return (n, "dropped".to_string());
            }
            (n, letters(&transaction.finish(batch).await.outcomes))
        });
    }
    for (n, outcome) in tasks.join_all().await {
        assert_eq!(outcome, ["S", "dropped", "A"][usize::try_from(n % 3).unwrap()]);
    }
    assert_eq!(rows(&bed).await, (0..60).filter(|n| n % 3 == 2).collect::<Vec<_>>());
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_it_too_long_loses_and_the_others_go_on() {
    let options = SqliteOptions { transaction_limit: Duration::from_millis(200), ..SqliteOptions::default() };
    let bed = Bed::with(options).await;
    table(&bed).await;
    let mut late = bed.store.begin().await.unwrap();
    put(&mut late, 1).await;
    let unit = bed.unit();
    let (store, batch) = (bed.store.clone(), bed.batch(vec![bed.unit()]));
    let behind = bed.runtime.spawn(async move { letters(&store.commit(batch).await.outcomes) });
    bed.runtime.sleep(Duration::from_millis(400)).await;
    let reply = late.finish(bed.batch(vec![unit.clone()])).await;
    assert_eq!(letters(&reply.outcomes), "F");
    assert_eq!(behind.join().await.unwrap(), "A", "who waited for the lock gets it");
    assert_eq!(rows(&bed).await, [0i64; 0]);
    assert_eq!(bed.commit(vec![unit]).await, "A", "nothing of it was done");
    bed.close().await;
}

#[tokio::test]
async fn a_begin_of_the_handler_is_a_savepoint_and_a_commit_by_hand_is_found_out() {
    let bed = Bed::new().await;
    table(&bed).await;
    let mut transaction = bed.store.begin().await.unwrap();
    let inner = raw(&mut transaction).begin().await.unwrap();
    inner.rollback().await.unwrap();
    let mut inner = raw(&mut transaction).begin().await.unwrap();
    sqlx::query("insert into own values (2)").execute(&mut *inner).await.unwrap();
    inner.commit().await.unwrap();
    assert_eq!(letters(&transaction.finish(bed.batch(vec![bed.unit()])).await.outcomes), "A");
    assert_eq!(rows(&bed).await, [2]);
    let mut transaction = bed.store.begin().await.unwrap();
    sqlx::raw_sql("commit").execute(raw(&mut transaction)).await.unwrap();
    let reply = transaction.finish(bed.batch(vec![bed.unit()])).await;
    assert_eq!(letters(&reply.outcomes), "F");
    assert_eq!(bed.commit(vec![bed.unit()]).await, "A", "the store goes on");
    bed.close().await;
}

#[tokio::test]
async fn a_begin_that_nobody_waits_for_any_more_blocks_nobody() {
    let bed = Bed::new().await;
    for _ in 0..20 {
        let waiting = bed.store.begin();
        // cancelled at different points
        let _ = bed.runtime.timeout(bed.runtime.jitter(Duration::from_micros(300)), waiting).await;
    }
    assert_eq!(bed.commit(vec![bed.unit()]).await, "A");
    bed.close().await;
}

#[tokio::test]
async fn a_commit_that_fails_is_not_taken_for_a_success() {
    let bed = Bed::new().await;
    table(&bed).await;
    let unit = bed.unit();
    let mut transaction = bed.store.begin().await.unwrap();
    put(&mut transaction, 1).await;
    // the one way to make COMMIT itself fail on purpose
    raw(&mut transaction).lock_handle().await.unwrap().set_commit_hook(|| false);
    let reply = transaction.finish(bed.batch(vec![unit.clone()])).await;
    let [Outcome::Failed(error)] = reply.outcomes.as_slice() else { panic!("{:?}", reply.outcomes) };
    assert!(error.is_unknown(), "only the gate can tell: {error}");
    assert_eq!(rows(&bed).await, [0i64; 0]);
    assert_eq!(bed.commit(vec![unit]).await, "A");
    bed.close().await;
}
