//! Several processes on one file.

use super::fixture::{Fixture, url};
use crate::sqlite::{SqliteOptions, SqliteStore};
use sagabus_core::{
    CommitBatch, Gate, LeaseRequest, Leases as _, MessageId, NodeId, Owner, Queues as _, Store as _, UnitOfWork,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_get_their_share_of_one_file() {
    let fixture = Fixture::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (url, runtime) = (url(&fixture.directory), fixture.runtime.clone());
        tasks.spawn(async move {
            let store = SqliteStore::open(&url, SqliteOptions::default().isolated()).await.unwrap();
            let node = NodeId(runtime.uuid());
            let request =
                LeaseRequest { group: "shop".into(), node, ttl: Duration::from_secs(5), shards: true, release: vec![] };
            store.heartbeat(&request).await.unwrap();
            runtime.sleep(Duration::from_millis(200)).await;
            // from here on each of them knows of the others
            store.heartbeat(&request).await.unwrap();
            let (start, mut commits) = (runtime.elapsed(), 0u64);
            while runtime.elapsed() - start < Duration::from_secs(2) {
                let unit = UnitOfWork::new("order".into(), MessageId(runtime.uuid()), Gate::Inbox);
                let owner = Owner { endpoint: "shop".into(), node };
                let batch = CommitBatch { owner, joined: true, units: vec![unit], sent: Vec::new() };
                assert!(store.commit(batch).await.outcomes[0].is_applied());
                commits += 1;
            }
            store.close().await;
            commits
        });
    }
    let commits = tasks.join_all().await;
    let mean = commits.iter().sum::<u64>() / 4;
    println!("commits of each: {commits:?}");
    assert!(commits.iter().all(|own| *own > mean / 3), "{commits:?}");
    fixture.close().await;
}

#[tokio::test]
async fn rows_of_another_process_wake_who_waits() {
    let fixture = Fixture::new().await;
    let other = SqliteStore::open(&url(&fixture.directory), SqliteOptions::default().isolated()).await.unwrap();
    assert!(fixture.store.read("q", &[0], 0, 1).await.unwrap().is_empty());
    // the first look only learns where the file stands
    fixture.store.wait("q", Duration::from_millis(100)).await;
    let waiting = fixture.runtime.spawn({
        let (store, runtime) = (fixture.store.clone(), fixture.runtime.clone());
        async move {
            let start = runtime.elapsed();
            store.wait("q", Duration::from_secs(20)).await;
            runtime.elapsed() - start
        }
    });
    fixture.runtime.sleep(Duration::from_millis(50)).await;
    other.declare("r").await.unwrap();
    assert!(waiting.join().await.unwrap() < Duration::from_secs(5));
    other.close().await;
    fixture.close().await;
}
