//! Delays on the broker, for those who have no store, on a real one.
#![cfg(feature = "rabbitmq")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod rabbitmq_support;

use rabbitmq_support::{Process, RabbitHarness};
use sagabus_core::{Destination, MessageId, Outgoing, SendOutcome, Settle, Topology, Transport};
use sagabus_testkit::transport::{Fixture, TransportHarness};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

async fn bed(parameters: &str) -> (Arc<RabbitHarness>, Fixture, Arc<Process>) {
    let harness = Arc::new(RabbitHarness::new());
    let (process, _) = harness.process(parameters).await;
    (harness.clone(), Fixture::new(harness, process.clone()), process)
}

fn to(bed: &Fixture, queue: &str) -> Outgoing {
    Outgoing { to: Destination::Queue(queue.into()), message: bed.message("{}") }
}

async fn later(process: &Process, outgoing: Outgoing, delay: Duration) -> SendOutcome {
    process.send_delayed(&[(outgoing, delay)]).await.remove(0)
}

/// Takes and settles until all of these came, each not before its time, and each once.
async fn in_time(bed: &Fixture, queue: &str, due: &BTreeMap<MessageId, Duration>) {
    let receiver = bed.receiver(queue, 100).await;
    let mut came = BTreeMap::new();
    while came.len() < due.len() {
        let got = bed.take(&receiver, 1).await;
        let (id, now) = (got[0].message.headers.message_id, bed.runtime.elapsed());
        assert!(now >= due[&id], "{:?} early", due[&id] - now);
        assert_eq!(came.insert(id, now), None, "twice");
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    bed.nothing(&receiver).await;
    receiver.close().await;
}

/// Sends with these delays, in milliseconds; answers when each may come.
async fn send(bed: &Fixture, process: &Process, queue: &str, delays: &[u64]) -> BTreeMap<MessageId, Duration> {
    let mut due = BTreeMap::new();
    for delay in delays.iter().map(|millis| Duration::from_millis(*millis)) {
        let outgoing = to(bed, queue);
        due.insert(outgoing.message.headers.message_id, bed.runtime.elapsed() + delay);
        let outcome = later(process, outgoing, delay).await;
        assert!(outcome.is_done(), "{outcome:?}");
    }
    due
}

/// What is due first comes first, whatever was sent before it; nothing comes early, and what has the same end of a name
/// gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_early_and_everything_comes() {
    let (harness, bed, process) = bed("").await;
    bed.queue("shop", &[]).await;
    bed.queue("other.shop", &[]).await;
    let other = send(&bed, &process, "other.shop", &[1000]).await;
    let due = send(&bed, &process, "shop", &[7000, 5000, 3001, 3000, 2000, 1000, 1, 6000, 4000, 1000]).await;
    in_time(&bed, "shop", &due).await;
    in_time(&bed, "other.shop", &other).await;
    harness.close().await;
}

/// Many at once, over two levels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    let (harness, bed, process) = bed("").await;
    bed.queue("q", &[]).await;
    let delay = Duration::from_secs(3);
    let batch: Vec<(Outgoing, Duration)> = (0..2000).map(|_| (to(&bed, "q"), delay)).collect();
    let begun = bed.runtime.elapsed();
    let outcomes = process.send_delayed(&batch).await;
    assert!(outcomes.iter().all(SendOutcome::is_done), "{outcomes:?}");
    let ids: Vec<MessageId> = batch.iter().map(|(outgoing, _)| outgoing.message.headers.message_id).collect();
    let receiver = bed.receiver("q", 1000).await;
    let seen = bed.drain(&receiver, &ids).await;
    assert!(bed.runtime.elapsed() - begun >= delay);
    assert_eq!((seen.len(), seen.values().max()), (2000, Some(&1)));
    receiver.close().await;
    harness.close().await;
}

/// What cannot be delayed is refused, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused() {
    let (harness, bed, process) = bed("").await;
    bed.queue("q", &[]).await;
    let longest = process.capabilities().longest_delay.unwrap();
    let event = Outgoing { to: Destination::Topic("kit.event".into()), message: bed.message("{}") };
    for (outgoing, delay, text) in [
        (to(&bed, "nowhere"), Duration::from_secs(1), "nowhere"),
        (to(&bed, "q"), longest + Duration::from_nanos(1), "longest"),
        (event, Duration::from_secs(1), "published"),
    ] {
        match later(&process, outgoing, delay).await {
            SendOutcome::Unroutable(reason) => assert!(reason.contains(text), "{reason}"),
            outcome => panic!("{outcome:?}"),
        }
    }
    let outcome = later(&process, to(&bed, "q"), longest).await;
    assert!(outcome.is_done(), "{outcome:?}");
    assert_eq!(harness.waiting(&harness.name("sagabus.delay.27")).await, Some(1));
    harness.close().await;
}

/// A queue that is gone when something for it is due: it waits, and comes when the queue is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_destination_waits_for_it() {
    let (harness, bed, process) = bed("topology_check=1").await;
    bed.queue("q", &[]).await;
    let due = send(&bed, &process, "q", &[1000, 1000, 2000]).await;
    harness.delete_queue("q").await;
    let strays = harness.name("sagabus.delay.undeliverable");
    // the endpoint looks after its queue each second, so they may be there for a moment only; nothing else brings them back
    bed.eventually("the queue is back", async || harness.waiting(&harness.name("q")).await.map(drop)).await;
    in_time(&bed, "q", &due).await;
    assert_eq!(harness.waiting(&strays).await, Some(0));
    harness.close().await;
}

/// Levels that somebody deleted are made again; what is told as done comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_exchanges_are_made_again() {
    let (harness, bed, process) = bed("").await;
    bed.queue("q", &[]).await;
    let mut due = send(&bed, &process, "q", &[3000]).await;
    for exchange in ["sagabus.delay.00", "sagabus.delay.02"] {
        harness.delete_exchange(exchange).await;
    }
    let outgoing = to(&bed, "q");
    due.insert(outgoing.message.headers.message_id, bed.runtime.elapsed() + Duration::from_secs(5));
    bed.eventually("it is sent", async || {
        let outcome = later(&process, outgoing.clone(), Duration::from_secs(5)).await;
        assert!(!matches!(outcome, SendOutcome::Unroutable(_)), "{outcome:?}");
        outcome.is_done().then_some(())
    })
    .await;
    in_time(&bed, "q", &due).await;
    harness.close().await;
}

/// An endpoint without a store leaves in `<queue>.error` what lies there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_dead_letters_stay() {
    let (harness, bed, process) = bed("").await;
    process.provision(&Topology { queue: Some("q".into()), storeless: true, ..Topology::default() }).await.unwrap();
    let letter = to(&bed, "q.error");
    assert!(process.send_batch(&[letter]).await[0].is_done());
    let receiver = bed.receiver("q", 10).await;
    bed.nothing(&receiver).await;
    assert_eq!(harness.waiting(&harness.name("q.error")).await, Some(1));
    receiver.close().await;
    harness.close().await;
}
