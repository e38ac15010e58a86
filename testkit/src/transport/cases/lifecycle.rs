//! Starting, stopping, closing.

use crate::transport::{
    Fixture,
    fixture::{ids, sorted},
};
use sagabus_core::{Settle, Topology};
use std::time::Duration;

/// After a stop, `next` says that it is closed, every time.
pub async fn stop_ends_next(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 10).await;
    let receiver = fixture.receiver("q", 3).await;
    fixture.take(&receiver, 3).await;
    receiver.stop().await;
    for _ in 0..3 {
        assert!(receiver.next(10).await.unwrap_err().is_closed());
    }
}

/// A stop wakes a `next` that waits.
pub async fn stop_wakes_next(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let receiver = fixture.receiver("q", 3).await;
    let waiting = {
        let receiver = receiver.clone();
        fixture.runtime.spawn(async move { receiver.next(1).await })
    };
    fixture.nothing(&receiver).await;
    receiver.stop().await;
    let ended = fixture.runtime.timeout(Duration::from_secs(5), waiting.join()).await.expect("it wakes");
    assert!(ended.expect("no panic").unwrap_err().is_closed());
}

/// After a stop, what is in flight can still be settled.
pub async fn settling_after_stop_counts(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 10).await;
    let receiver = fixture.receiver("q", 4).await;
    let got = fixture.take(&receiver, 4).await;
    receiver.stop().await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 6).await;
    receiver.close().await;
}

/// What was read ahead and not handed out goes back; the next consumer gets it without waiting for a lease.
pub async fn what_was_not_handed_out_goes_back(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 300).await;
    let receiver = fixture.receiver("q", 5).await;
    let got = fixture.take(&receiver, 5).await;
    receiver.stop().await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    receiver.close().await;
    let start = fixture.runtime.elapsed();
    let next = fixture.again().await.receiver("q", 300).await;
    let rest = fixture.take(&next, 295).await;
    assert!(fixture.runtime.elapsed() - start < fixture.harness.lease(), "a clean stop frees at once");
    assert_eq!(sorted([ids(&rest), ids(&got)].concat()), sorted(sent));
    assert!(fixture.unsuspected(&rest));
}

/// Stopping and closing twice, and settling after that, does no harm.
pub async fn twice_is_harmless(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 2).await;
    let receiver = fixture.receiver("q", 5).await;
    let got = fixture.take(&receiver, 2).await;
    for _ in 0..2 {
        receiver.stop().await;
    }
    for _ in 0..2 {
        receiver.close().await;
    }
    fixture.settle(&receiver, &got, Settle::Done).await;
    assert!(receiver.next(1).await.unwrap_err().is_closed());
    // closed before it was settled: it comes again
    let next = fixture.receiver("q", 5).await;
    assert_eq!(sorted(ids(&fixture.take(&next, 2).await)), sorted(ids(&got)));
}

/// Closing without a stop is a stop, too.
pub async fn closing_stops(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let receiver = fixture.receiver("q", 5).await;
    receiver.close().await;
    assert!(receiver.next(1).await.unwrap_err().is_closed());
}

/// Fifty times around: nothing is lost, nothing leaks into the next round.
pub async fn fifty_cycles(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 200).await;
    let mut done = Vec::new();
    for _ in 0..50 {
        let receiver = fixture.receiver("q", 8).await;
        let got = fixture.take(&receiver, 8).await;
        assert!(fixture.unsuspected(&got));
        receiver.stop().await;
        fixture.settle(&receiver, &got[..4], Settle::Done).await;
        fixture.settle(&receiver, &got[4..], Settle::Return).await;
        done.extend(ids(&got[..4]));
        receiver.close().await;
        if done.len() + 8 > sent.len() {
            break;
        }
    }
    let receiver = fixture.receiver("q", 8).await;
    let left: Vec<_> = sent.iter().copied().filter(|id| !done.contains(id)).collect();
    let rest = fixture.drain(&receiver, &left).await;
    assert_eq!(sorted([done, rest.into_keys().collect()].concat()), sorted(sent));
    fixture.depth("q", 0).await;
}

/// A `next` that is dropped loses nothing.
pub async fn next_is_cancel_safe(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let receiver = fixture.receiver("q", 200).await;
    let mut got = Vec::new();
    let mut sent = Vec::new();
    for round in 0..60 {
        let short = Duration::from_micros(50 * (round % 10));
        if let Some(next) = fixture.runtime.timeout(short, receiver.next(2)).await {
            got.extend(next.unwrap());
        }
        sent.extend(fixture.fill("q", 2).await);
    }
    let rest = fixture.take(&receiver, sent.len() - got.len()).await;
    assert_eq!(sorted([ids(&got), ids(&rest)].concat()), sorted(sent));
    fixture.nothing(&receiver).await;
}

/// A closed transport refuses, and says why.
pub async fn a_closed_transport_refuses(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let other = fixture.again().await;
    other.transport.health().await.unwrap();
    other.transport.close().await;
    other.transport.close().await;
    assert!(other.transport.health().await.unwrap_err().is_closed());
    assert!(other.transport.provision(&Topology::default()).await.unwrap_err().is_closed());
    assert!(other.transport.receive(other.options("q", 1)).await.err().is_some_and(|e| e.is_closed()));
    fixture.fill("q", 1).await;
    fixture.depth("q", 1).await;
}

/// A reply queue works like any other, and goes away with its process.
pub async fn reply_queues(fixture: Fixture) {
    if !fixture.transport.capabilities().reply_queues {
        return super::missing::no_reply_queues(&fixture).await;
    }
    let process = fixture.again().await;
    let topology = Topology { queue: Some("reply.1".into()), temporary: true, ..Topology::default() };
    process.transport.provision(&topology).await.unwrap();
    let receiver = process.receiver("reply.1", 10).await;
    let sent = fixture.fill("reply.1", 3).await;
    process.drain(&receiver, &sent).await;
    receiver.close().await;
    process.transport.close().await;
    if fixture.harness.promises().removes_reply_queues {
        let to = sagabus_core::Destination::Queue("reply.1".into());
        fixture
            .eventually("the queue is gone", async || {
                let outgoing = sagabus_core::Outgoing { to: to.clone(), message: fixture.message("x") };
                let outcome = fixture.transport.send_batch(&[outgoing]).await.remove(0);
                matches!(outcome, sagabus_core::SendOutcome::Unroutable(_)).then_some(())
            })
            .await;
    }
}
