//! Handlers' own SQL: sharing a commit, and holding it for too long.

use super::fixture::{Fixture, outcome_codes};
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

async fn table(fixture: &Fixture) {
    sqlx::query("create table own (value integer)").execute(&mut fixture.stranger().await).await.unwrap();
}

async fn rows(fixture: &Fixture) -> Vec<i64> {
    sqlx::query_scalar("select value from own order by value").fetch_all(&mut fixture.stranger().await).await.unwrap()
}

#[tokio::test]
async fn many_share_a_commit_but_no_failure() {
    let fixture = Fixture::new().await;
    table(&fixture).await;
    let instance = InstanceId(fixture.runtime.uuid());
    assert_eq!(fixture.commit(vec![fixture.create("k", instance)]).await, "A");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let unit = if n % 3 == 0 { fixture.update("k", instance, 77) } else { fixture.unit() };
        let (store, batch) = (fixture.store.clone(), fixture.batch(vec![unit]));
        tasks.spawn(async move {
            let mut transaction = store.begin().await.unwrap();
            put(&mut transaction, n).await;
            // dropped, finished in vain, or finished
            if n % 3 == 1 {
                return (n, "dropped".to_string());
            }
            (n, outcome_codes(&transaction.finish(batch).await.outcomes))
        });
    }
    for (n, outcome) in tasks.join_all().await {
        assert_eq!(outcome, ["S", "dropped", "A"][usize::try_from(n % 3).unwrap()]);
    }
    assert_eq!(rows(&fixture).await, (0..60).filter(|n| n % 3 == 2).collect::<Vec<_>>());
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_it_too_long_loses_and_the_others_go_on() {
    let options = SqliteOptions { transaction_limit: Duration::from_millis(200), ..SqliteOptions::default() };
    let fixture = Fixture::with(options).await;
    table(&fixture).await;
    let mut late = fixture.store.begin().await.unwrap();
    put(&mut late, 1).await;
    let unit = fixture.unit();
    let (store, batch) = (fixture.store.clone(), fixture.batch(vec![fixture.unit()]));
    let behind = fixture.runtime.spawn(async move { outcome_codes(&store.commit(batch).await.outcomes) });
    fixture.runtime.sleep(Duration::from_millis(400)).await;
    let reply = late.finish(fixture.batch(vec![unit.clone()])).await;
    assert_eq!(outcome_codes(&reply.outcomes), "F");
    assert_eq!(behind.join().await.unwrap(), "A", "who waited for the lock gets it");
    assert_eq!(rows(&fixture).await, [0i64; 0]);
    assert_eq!(fixture.commit(vec![unit]).await, "A", "nothing of it was done");
    fixture.close().await;
}

#[tokio::test]
async fn a_begin_of_the_handler_is_a_savepoint_and_a_commit_by_hand_is_found_out() {
    let fixture = Fixture::new().await;
    table(&fixture).await;
    let mut transaction = fixture.store.begin().await.unwrap();
    let inner = raw(&mut transaction).begin().await.unwrap();
    inner.rollback().await.unwrap();
    let mut inner = raw(&mut transaction).begin().await.unwrap();
    sqlx::query("insert into own values (2)").execute(&mut *inner).await.unwrap();
    inner.commit().await.unwrap();
    assert_eq!(outcome_codes(&transaction.finish(fixture.batch(vec![fixture.unit()])).await.outcomes), "A");
    assert_eq!(rows(&fixture).await, [2]);
    let mut transaction = fixture.store.begin().await.unwrap();
    sqlx::raw_sql("commit").execute(raw(&mut transaction)).await.unwrap();
    let reply = transaction.finish(fixture.batch(vec![fixture.unit()])).await;
    assert_eq!(outcome_codes(&reply.outcomes), "F");
    assert_eq!(fixture.commit(vec![fixture.unit()]).await, "A", "the store goes on");
    fixture.close().await;
}

#[tokio::test]
async fn an_abandoned_begin_blocks_no_other() {
    let fixture = Fixture::new().await;
    for _ in 0..20 {
        let waiting = fixture.store.begin();
        // cancelled at different points
        let _ = fixture.runtime.timeout(fixture.runtime.jitter(Duration::from_micros(300)), waiting).await;
    }
    assert_eq!(fixture.commit(vec![fixture.unit()]).await, "A");
    fixture.close().await;
}

#[tokio::test]
async fn a_commit_that_fails_is_not_taken_for_a_success() {
    let fixture = Fixture::new().await;
    table(&fixture).await;
    let unit = fixture.unit();
    let mut transaction = fixture.store.begin().await.unwrap();
    put(&mut transaction, 1).await;
    // the one way to make COMMIT itself fail on purpose
    raw(&mut transaction).lock_handle().await.unwrap().set_commit_hook(|| false);
    let reply = transaction.finish(fixture.batch(vec![unit.clone()])).await;
    let [Outcome::Failed(error)] = reply.outcomes.as_slice() else { panic!("{:?}", reply.outcomes) };
    assert!(error.is_unknown(), "only the gate can tell: {error}");
    assert_eq!(rows(&fixture).await, [0i64; 0]);
    assert_eq!(fixture.commit(vec![unit]).await, "A");
    fixture.close().await;
}
