//! Exchanges, queues and bindings that somebody removes while the system runs, on a real broker.
#![cfg(feature = "rabbitmq")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod rabbitmq_support;

use lapin::types::FieldTable;
use rabbitmq_support::{EXCHANGES, Process, RabbitHarness};
use sagabus_core::{Destination, MessageId, Outgoing, SendOutcome, Settle, Topology};
use sagabus_testkit::transport::{Fixture, TransportHarness};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn bed(parameters: &str) -> (Arc<RabbitHarness>, Fixture, Arc<Process>) {
    let harness = Arc::new(RabbitHarness::new());
    let (process, _) = harness.process(parameters).await;
    (harness.clone(), Fixture::new(harness, process.clone()), process)
}

fn event(bed: &Fixture) -> Outgoing {
    Outgoing { to: Destination::Topic("kit.event".into()), message: bed.message("{}") }
}

fn command(bed: &Fixture, queue: &str) -> Outgoing {
    Outgoing { to: Destination::Queue(queue.into()), message: bed.message("{}") }
}

/// Sends it as an outbox does: again under the same id, until it is done.
async fn insist(bed: &Fixture, outgoing: Outgoing) -> MessageId {
    let outgoing = [outgoing];
    let begun = bed.runtime.elapsed();
    loop {
        match bed.transport.send_batch(&outgoing).await.remove(0) {
            SendOutcome::Done => break,
            SendOutcome::Retry(_) | SendOutcome::Unknown(_) if bed.runtime.elapsed() - begun < PATIENCE => {
                bed.runtime.sleep(Duration::from_millis(5)).await;
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    outgoing[0].message.headers.message_id
}

async fn ids(bed: &Fixture, queue: &str, wanted: &BTreeSet<MessageId>) {
    let receiver = bed.receiver(queue, 1000).await;
    let mut seen = BTreeSet::new();
    bed.eventually(&format!("all {} of queue {queue}", wanted.len()), async || {
        if let Some(Ok(got)) = bed.runtime.timeout(Duration::from_millis(100), receiver.next(1000)).await {
            seen.extend(got.iter().map(|d| d.message.headers.message_id));
            bed.settle(&receiver, &got, Settle::Done).await;
        }
        wanted.is_subset(&seen).then_some(())
    })
    .await;
    receiver.close().await;
}

/// Exchanges are deleted again and again while three processes publish; one of the two subscribers does not run at all. No
/// event that was told as done misses either of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_exchanges_lose_no_event() {
    let (harness, bed, _) = bed("").await;
    bed.queue("one", &["kit.event"]).await;
    let elsewhere = bed.again().await;
    elsewhere.queue("two", &["kit.event"]).await;
    elsewhere.transport.close().await;
    let over = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for _ in 0..3 {
        let (bed, over) = (bed.again().await, Arc::clone(&over));
        publishers.push(tokio::spawn(async move {
            let mut sent = BTreeSet::new();
            while !over.load(Ordering::SeqCst) {
                sent.insert(insist(&bed, event(&bed)).await);
            }
            sent
        }));
    }
    for round in 0..24 {
        bed.runtime.sleep(Duration::from_millis(120 + 37 * (round % 5))).await;
        harness.delete_exchange(EXCHANGES[round as usize % 2]).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut all = BTreeSet::new();
    for publisher in publishers {
        all.extend(publisher.await.unwrap());
    }
    println!("{} events", all.len());
    assert!(all.len() > 100);
    ids(&bed, "one", &all).await;
    ids(&bed, "two", &all).await;
    harness.close().await;
}

/// The exchange is there again, but nothing is bound to it: somebody was quick with a script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_was_replaced_is_bound_again() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &["kit.event"]).await;
    let mut all = BTreeSet::new();
    for name in EXCHANGES {
        harness.delete_exchange(name).await;
        let raw = harness.raw().await;
        let options = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Topic;
        raw.exchange_declare(harness.name(name).into(), kind, options, FieldTable::default()).await.unwrap();
        all.insert(insist(&bed, event(&bed)).await);
        let mut keyed = event(&bed);
        keyed.message.headers.order_key = Some("key".into());
        all.insert(insist(&bed, keyed).await);
    }
    ids(&bed, "q", &all).await;
    harness.close().await;
}

/// What has an order key does not go round its partition while its exchange is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_a_deleted_exchange() {
    let (harness, bed, _) = bed("").await;
    let topology = Topology { queue: Some("q".into()), ordered: true, ..Topology::default() };
    bed.transport.provision(&topology).await.unwrap();
    let mut sent = Vec::new();
    for (n, message) in bed.keyed("key", 0..40).into_iter().enumerate() {
        if n % 10 == 5 {
            harness.delete_exchange(EXCHANGES[2 + n / 10 % 2]).await;
        }
        sent.push(insist(&bed, Outgoing { to: Destination::Queue("q".into()), message }).await);
    }
    assert_eq!(harness.waiting(&harness.name("q")).await, Some(0), "some went round the partition");
    let (receiver, _) = bed.ordered("q", 100).await;
    let mut got: Vec<MessageId> = Vec::new();
    while got.len() < sent.len() {
        let taken = bed.take(&receiver, 1).await;
        got.extend(
            taken.iter().map(|d| d.message.headers.message_id).filter(|id| !got.contains(id)).collect::<Vec<_>>(),
        );
        bed.settle(&receiver, &taken, Settle::Done).await;
    }
    assert_eq!(got, sent);
    harness.close().await;
}

/// The queue is deleted under its consumer. A command that finds it missing is not blamed on the sender, and an event
/// that would reach nobody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_waited_for() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &["kit.event"]).await;
    let receiver = bed.receiver("q", 100).await;
    let other = bed.again().await;
    for _ in 0..5 {
        harness.delete_queue("q").await;
        let mut wanted = BTreeSet::from([insist(&other, command(&other, "q")).await]);
        wanted.insert(insist(&other, event(&other)).await);
        bed.eventually("both come", async || {
            if let Some(Ok(got)) = bed.runtime.timeout(Duration::from_millis(100), receiver.next(10)).await {
                wanted.retain(|id| got.iter().all(|d| d.message.headers.message_id != *id));
                bed.settle(&receiver, &got, Settle::Done).await;
            }
            wanted.is_empty().then_some(())
        })
        .await;
    }
    receiver.close().await;
    harness.close().await;
}

/// The queue of an endpoint that does not run is deleted: what is for it waits, until the endpoint comes back or is
/// retired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_there_until_it_is_retired() {
    let (harness, bed, process) = bed("").await;
    let elsewhere = bed.again().await;
    elsewhere.queue("q", &["kit.event"]).await;
    elsewhere.transport.close().await;
    harness.delete_queue("q").await;
    for outgoing in [command(&bed, "q"), event(&bed)] {
        let outcome = bed.transport.send_batch(&[outgoing]).await.remove(0);
        let SendOutcome::Retry(error) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().contains("not retired"), "{error}");
    }
    bed.queue("q", &["kit.event"]).await;
    insist(&bed, command(&bed, "q")).await;
    insist(&bed, event(&bed)).await;
    bed.depth("q", 2).await;
    process.inner.retire("q").await.unwrap();
    assert!(bed.transport.send_batch(&[event(&bed)]).await.remove(0).is_done());
    insist(&bed, command(&bed, "q")).await;
    assert_eq!(harness.waiting(&harness.name("q")).await, Some(3), "a retired endpoint gets events");
    harness.delete_queue("q").await;
    let outcome = bed.transport.send_batch(&[command(&bed, "q")]).await.remove(0);
    assert!(matches!(outcome, SendOutcome::Unroutable(_)), "{outcome:?}");
    harness.close().await;
}

/// Somebody removes one binding of two. Nothing tells, but the next check puts it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_binding_comes_back() {
    let (harness, bed, _) = bed("topology_check=1").await;
    bed.queue("one", &["kit.event"]).await;
    bed.queue("two", &["kit.event"]).await;
    let behind = harness.name("sagabus.events.queues");
    let unbind = |queue: &str| (harness.name(queue), behind.clone());
    let (queue, exchange) = unbind("one");
    let raw = harness.raw().await;
    raw.queue_unbind(queue.into(), exchange.into(), "kit.event".into(), FieldTable::default()).await.unwrap();
    bed.eventually("an event comes through again", async || {
        assert!(bed.transport.send_batch(&[event(&bed)]).await.remove(0).is_done());
        (harness.depth("one").await > 0).then_some(())
    })
    .await;
    harness.close().await;
}

/// Two versions of an endpoint side by side: the older one looks after its queue without ending what the newer one has
/// subscribed to, also when its queue is deleted under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_process_ends_no_newer_subscription() {
    let (harness, bed, _) = bed("topology_check=1").await;
    bed.queue("q", &["kit.other"]).await;
    let receiver = bed.receiver("q", 100).await;
    let newer = bed.again().await;
    newer.queue("q", &["kit.other", "kit.event"]).await;
    for round in 0..2 {
        // several of the older one's looks
        bed.runtime.sleep(Duration::from_secs(3)).await;
        let sent = insist(&newer, event(&newer)).await;
        bed.eventually("the event comes", async || {
            let got = bed.runtime.timeout(Duration::from_millis(100), receiver.next(100)).await?.ok()?;
            bed.settle(&receiver, &got, Settle::Done).await;
            got.iter().any(|d| d.message.headers.message_id == sent).then_some(())
        })
        .await;
        if round == 0 {
            harness.delete_queue("q").await;
        }
    }
    receiver.close().await;
    harness.close().await;
}

/// On request stale subscriptions are kept, and removed by whoever starts without that request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_subscriptions_are_kept_or_removed() {
    let (harness, bed, _) = bed("stale=keep").await;
    bed.queue("q", &["kit.event", "kit.other"]).await;
    bed.queue("q", &["kit.other"]).await;
    insist(&bed, event(&bed)).await;
    bed.depth("q", 1).await;
    let remover = Fixture::new(harness.clone(), harness.process("stale=remove").await.0);
    remover.queue("q", &["kit.other"]).await;
    assert!(bed.transport.send_batch(&[event(&bed)]).await.remove(0).is_done());
    insist(&bed, command(&bed, "q")).await;
    bed.depth("q", 2).await;
    assert_eq!(harness.waiting(&harness.name("q")).await, Some(2), "the subscription has not ended");
    harness.close().await;
}

/// An event without any subscriber is nobody's, also after an exchange was lost; asking again does not take a turn each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_for_nobody_is_done() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &["kit.other"]).await;
    let start = bed.runtime.elapsed();
    for round in 0..200 {
        if round == 100 {
            harness.delete_exchange(EXCHANGES[1]).await;
        }
        assert!(bed.transport.send_batch(&[event(&bed)]).await.remove(0).is_done());
    }
    let took = bed.runtime.elapsed() - start;
    assert!(took < Duration::from_secs(10), "{took:?}");
    harness.close().await;
}
