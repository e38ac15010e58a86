//! Opening, migrating, checking, and files that others hold.

use super::fixture::{Fixture, url};
use crate::sqlite::{SqliteOptions, SqliteStore};
use sagabus_core::{ErrorKind, Outcome, Store};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_migrate_at_once() {
    let directory = std::env::temp_dir().join(format!("sagabus-migrate-{}", uuid::Uuid::from_u128(rand()).simple()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url(&directory);
        tasks.spawn(async move {
            let store = SqliteStore::open(&url, SqliteOptions::default().isolated()).await.unwrap();
            Store::migrate(&*store).await.unwrap();
            store.check().await.unwrap();
            store
        });
    }
    for store in tasks.join_all().await {
        store.close().await;
    }
    std::fs::remove_dir_all(directory).unwrap();
}

fn rand() -> u128 {
    u128::from(sagabus_core::Runtime::system().random())
}

#[tokio::test]
async fn stores_on_one_file_share_a_writer_and_the_last_one_closes_it() {
    let fixture = Fixture::new().await;
    let detour = format!("sqlite://{}/./bus.db", fixture.directory.display());
    let other = SqliteStore::open(&detour, SqliteOptions::default()).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&other.file, &fixture.store.file));
    other.close().await;
    other.close().await;
    assert!(other.now().await.unwrap_err().is_closed());
    assert_eq!(fixture.commit(vec![fixture.unit()]).await, "A");
    let again = SqliteStore::open(&detour, SqliteOptions::default()).await.unwrap();
    fixture.store.close().await;
    assert!(again.now().await.is_ok());
    again.close().await;
    let fresh = SqliteStore::open(&detour, SqliteOptions::default()).await.unwrap();
    assert!(fresh.now().await.is_ok() && fresh.check().await.is_ok());
    fresh.close().await;
    std::fs::remove_dir_all(&fixture.directory).unwrap();
}

#[tokio::test]
async fn what_does_not_sync_or_fit_is_refused() {
    let fixture = Fixture::with(SqliteOptions::default().volatile()).await;
    assert!(fixture.store.check().await.is_ok(), "volatile by intent");
    let error = SqliteStore::open(&url(&fixture.directory), SqliteOptions::default()).await.err().unwrap();
    assert!(error.is_invalid(), "{error}");
    let strict = SqliteStore::open(&url(&fixture.directory), SqliteOptions::default().isolated()).await.unwrap();
    assert!(strict.check().await.is_ok(), "its own connection syncs");
    let mut stranger = fixture.stranger().await;
    sqlx::query("update sagabus_schema set version=99").execute(&mut stranger).await.unwrap();
    for error in [strict.check().await.unwrap_err(), Store::migrate(&*strict).await.unwrap_err()] {
        assert!(error.is_invalid() && error.to_string().contains("99"), "{error}");
    }
    strict.close().await;
    let gone = SqliteStore::open("sqlite:///no/such/place.db", SqliteOptions::default()).await.err().unwrap();
    assert!(gone.is_invalid(), "{gone}");
    let missing = format!("sqlite://{}?mode=rw", fixture.directory.join("none.db").display());
    assert!(SqliteStore::open(&missing, SqliteOptions::default()).await.err().unwrap().is_not_found());
    fixture.close().await;
}

#[tokio::test]
async fn an_unmigrated_file_says_so() {
    let fixture = Fixture::new().await;
    let url = format!("sqlite://{}", fixture.directory.join("other.db").display());
    let store = SqliteStore::open(&url, SqliteOptions::default()).await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("migrate"), "{error}");
    store.close().await;
    fixture.close().await;
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_then_reported() {
    let options = SqliteOptions { busy_limit: Duration::from_millis(300), ..SqliteOptions::default() };
    let fixture = Fixture::with(options).await;
    let mut stranger = fixture.stranger().await;
    sqlx::query("begin exclusive").execute(&mut stranger).await.unwrap();
    let reply = fixture.store.commit(fixture.batch(vec![fixture.unit()])).await;
    let [Outcome::Failed(error)] = reply.outcomes.as_slice() else { panic!("{:?}", reply.outcomes) };
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(fixture.store.begin().await.err().unwrap().is_transient());
    let unit = fixture.unit();
    let waiting = fixture.runtime.spawn({
        let (store, batch) = (fixture.store.clone(), fixture.batch(vec![unit.clone()]));
        async move { store.commit(batch).await.outcomes.remove(0) }
    });
    fixture.runtime.sleep(Duration::from_millis(100)).await;
    sqlx::query("commit").execute(&mut stranger).await.unwrap();
    assert!(waiting.join().await.unwrap().is_applied());
    assert_eq!(fixture.commit(vec![unit]).await, "D");
    fixture.close().await;
}
