//! The lease keeper against scripted leases, under virtual time.
#![cfg(feature = "simulation")]
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

use async_trait::async_trait;
use sagabus_core::{
    Error, ErrorKind, Lease, LeaseKeeper, LeaseKeeperOptions, LeaseRequest, Leases, NodeId, Result, Runtime,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    last: Mutex<Lease>,
    requests: Mutex<Vec<LeaseRequest>>,
    left: Mutex<u32>,
}

enum Answer {
    Lease(Lease),
    Fail,
    Slow(Duration),
}

#[async_trait]
impl Leases for Script {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        self.requests.lock().unwrap().push(request.clone());
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Lease(lease)) => *self.last.lock().unwrap() = lease,
            Some(Answer::Fail) => return Err(Error::new(ErrorKind::Transient, "busy")),
            Some(Answer::Slow(pause)) => runtime().sleep(pause).await,
            None => {}
        }
        let mut last = self.last.lock().unwrap();
        let lease = last.clone();
        last.inherited.clear();
        last.lapsed = false;
        Ok(lease)
    }

    async fn leave(&self, _: &str, _: NodeId) -> Result<()> {
        *self.left.lock().unwrap() += 1;
        Ok(())
    }
}

thread_local! {
    static RUNTIME: Runtime = Runtime::simulated(1);
}

/// One per test, as each test has its thread: the virtual clock starts when it is first asked for.
fn runtime() -> Runtime {
    RUNTIME.with(Clone::clone)
}

const TTL: Duration = Duration::from_secs(3);

fn lease(shards: &[(u16, i64)]) -> Lease {
    Lease { shards: shards.to_vec(), members: 1, ..Lease::default() }
}

async fn keeper(script: &Arc<Script>) -> Result<LeaseKeeper> {
    let runtime = runtime();
    LeaseKeeper::start(LeaseKeeperOptions {
        leases: Arc::clone(script) as Arc<dyn Leases>,
        group: "queue:a".into(),
        node: NodeId(runtime.uuid()),
        ttl: TTL,
        shards: true,
        runtime,
    })
    .await
}

fn script(answers: impl IntoIterator<Item = Answer>) -> Arc<Script> {
    Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() })
}

#[tokio::test(start_paused = true)]
async fn beats_three_times_per_ttl_and_leaves_once() {
    let script = script([Answer::Lease(lease(&[(2, 1), (1, 1)]))]);
    let keeper = keeper(&script).await.unwrap();
    assert_eq!(keeper.view().shards, [(1, 1), (2, 1)]);
    runtime().sleep(TTL * 10).await;
    let beats = script.requests.lock().unwrap().len();
    assert!((30..=42).contains(&beats), "{beats}");
    assert!(keeper.is_good());
    keeper.close().await.unwrap();
    keeper.close().await.unwrap();
    assert!(!keeper.is_good());
    assert_eq!(*script.left.lock().unwrap(), 1);
    runtime().sleep(TTL * 10).await;
    assert_eq!(script.requests.lock().unwrap().len(), beats);
}

#[tokio::test(start_paused = true)]
async fn a_first_heartbeat_that_fails_is_the_callers() {
    assert!(keeper(&script([Answer::Fail])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn failing_heartbeats_lapse_the_lease_and_a_later_one_is_a_new_generation() {
    let script = script([Answer::Lease(lease(&[(1, 1)]))]);
    let keeper = keeper(&script).await.unwrap();
    script.answers.lock().unwrap().extend((0..100).map(|_| Answer::Fail));
    let mut watch = keeper.watch();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    assert!(watch.borrow_and_update().shards.is_empty());
    assert!(!keeper.is_good());
    assert!(keeper.error().is_some_and(|e| e.is_transient()));
    script.answers.lock().unwrap().clear();
    watch.changed().await.unwrap();
    let view = keeper.view();
    assert_eq!((view.shards.as_slice(), view.generation), ([(1, 1)].as_slice(), 1));
    assert!(keeper.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_hangs_lapses_the_lease_in_time() {
    let script = script([Answer::Lease(lease(&[(1, 1)]))]);
    let keeper = keeper(&script).await.unwrap();
    script.answers.lock().unwrap().push_back(Answer::Slow(TTL * 3));
    let start = runtime().elapsed();
    let mut watch = keeper.watch();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    assert!(watch.borrow_and_update().shards.is_empty());
    let took = runtime().elapsed() - start;
    assert!(took <= TTL + Duration::from_millis(5), "{took:?}");
    // the late answer counts from when it was asked for: it is void, and another heartbeat follows
    watch.changed().await.unwrap();
    assert!(keeper.view().generation >= 1);
    assert!(keeper.is_good());
}

#[tokio::test(start_paused = true)]
async fn inherited_stays_listed_and_a_lost_answer_counts_as_inherited() {
    let mut first = lease(&[(1, 1), (2, 4)]);
    first.inherited = vec![2];
    let script = script([Answer::Lease(first)]);
    let keeper = keeper(&script).await.unwrap();
    assert_eq!(keeper.view().inherited, [2]);
    runtime().sleep(TTL * 2).await;
    assert_eq!(keeper.view().inherited, [2]);
    *script.last.lock().unwrap() = lease(&[(1, 1), (2, 4), (3, 7)]);
    script.answers.lock().unwrap().push_back(Answer::Fail);
    runtime().sleep(TTL).await;
    assert_eq!(keeper.view().inherited, [2, 3]);
    *script.last.lock().unwrap() = lease(&[(1, 1), (2, 5)]);
    runtime().sleep(TTL).await;
    assert!(keeper.view().inherited.is_empty());
}

#[tokio::test(start_paused = true)]
async fn releases_at_once_and_only_in_the_same_epoch() {
    let script = script([Answer::Lease(lease(&[(1, 1), (2, 1)]))]);
    let keeper = keeper(&script).await.unwrap();
    *script.last.lock().unwrap() = lease(&[(2, 1)]);
    keeper.release(1, 1);
    keeper.release(2, 9);
    runtime().sleep(Duration::from_millis(1)).await;
    assert_eq!(script.requests.lock().unwrap().last().unwrap().release, [1]);
    assert_eq!(keeper.view().shards, [(2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn dropping_is_no_leave() {
    let script = script([Answer::Lease(lease(&[(1, 1)]))]);
    drop(keeper(&script).await.unwrap());
    let beats = script.requests.lock().unwrap().len();
    runtime().sleep(TTL * 3).await;
    assert_eq!(script.requests.lock().unwrap().len(), beats);
    assert_eq!(*script.left.lock().unwrap(), 0);
}
