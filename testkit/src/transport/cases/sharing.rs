//! Consumers of one queue in several processes.

use crate::transport::{
    Fixture,
    fixture::{ids, sorted},
};
use sagabus_core::{MessageId, Receiver, Settle};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// What each of several consumers got.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(usize, MessageId)>>>);

impl Log {
    fn all(&self) -> Vec<(usize, MessageId)> {
        self.0.lock().unwrap().clone()
    }

    fn consumers(&self) -> usize {
        let mut who: Vec<usize> = self.all().into_iter().map(|(consumer, _)| consumer).collect();
        who.sort_unstable();
        who.dedup();
        who.len()
    }

    /// Takes and settles until the receiver is stopped.
    fn consume(&self, fixture: &Fixture, number: usize, receiver: &Arc<dyn Receiver>) {
        let (log, fixture, receiver) = (self.clone(), fixture.clone(), receiver.clone());
        fixture.runtime.clone().spawn(async move {
            while let Ok(got) = receiver.next(8).await {
                log.0.lock().unwrap().extend(ids(&got).into_iter().map(|id| (number, id)));
                fixture.settle(&receiver, &got, Settle::Done).await;
            }
        });
    }
}

async fn share(fixture: Fixture, consumers: usize) {
    fixture.queue("q", &[]).await;
    let log = Log::default();
    let mut receivers = Vec::new();
    for number in 0..consumers {
        let process = fixture.again().await;
        let receiver = process.receiver("q", 16).await;
        log.consume(&process, number, &receiver);
        receivers.push((process, receiver));
    }
    let mut sent = Vec::new();
    fixture
        .eventually("all of them get some", async || {
            sent.extend(fixture.fill("q", 64).await);
            (log.consumers() == consumers).then_some(())
        })
        .await;
    fixture.depth("q", 0).await;
    let got = log.all().into_iter().map(|(_, id)| id).collect();
    assert_eq!(sorted(got), sorted(sent), "each one once");
    for (_, receiver) in receivers {
        receiver.stop().await;
        receiver.close().await;
    }
}

/// Two share the work: both get some, no message comes twice.
pub async fn two_share_without_duplicates(fixture: Fixture) {
    share(fixture, 2).await;
}

/// So do five.
pub async fn five_share_without_duplicates(fixture: Fixture) {
    share(fixture, 5).await;
}

/// A consumer that leaves cleanly leaves nothing suspect behind, and nothing is lost or doubled.
pub async fn a_clean_leave_hands_over(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let first = fixture.again().await;
    let receiver = first.receiver("q", 10).await;
    let sent = fixture.fill("q", 100).await;
    let got = first.take(&receiver, 10).await;
    receiver.stop().await;
    first.settle(&receiver, &got[..5], Settle::Done).await;
    first.settle(&receiver, &got[5..], Settle::Return).await;
    receiver.close().await;
    let second = fixture.receiver("q", 200).await;
    let rest = fixture.take(&second, 95).await;
    assert!(fixture.unsuspected(&rest), "nobody died");
    assert_eq!(sorted([ids(&rest), ids(&got[..5])].concat()), sorted(sent));
    fixture.settle(&second, &rest, Settle::Done).await;
    fixture.depth("q", 0).await;
}

/// One of two dies: the other one gets what it had, and everything after that.
pub async fn a_survivor_takes_over(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let (one, two) = (fixture.again().await, fixture.again().await);
    let doomed = one.receiver("q", 20).await;
    let sent = fixture.fill("q", 100).await;
    let held = one.take(&doomed, 20).await;
    let log = Log::default();
    let survivor = two.receiver("q", 20).await;
    log.consume(&two, 0, &survivor);
    drop((doomed, one));
    let later = fixture.fill("q", 100).await;
    fixture.depth("q", 0).await;
    let mut seen: BTreeMap<MessageId, u32> = BTreeMap::new();
    for (_, id) in log.all() {
        *seen.entry(id).or_default() += 1;
    }
    assert!(sent.iter().chain(&later).all(|id| seen.contains_key(id)));
    assert!(held.iter().all(|d| seen[&d.message.headers.message_id] == 1));
    assert!(seen.values().all(|n| *n == 1), "each one once");
    survivor.close().await;
}

/// A consumer that comes later gets its share of what is sent after that.
pub async fn a_latecomer_gets_a_share(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let log = Log::default();
    let early = fixture.receiver("q", 16).await;
    log.consume(&fixture, 0, &early);
    let mut sent = fixture.fill("q", 64).await;
    fixture.depth("q", 0).await;
    let other = fixture.again().await;
    let late = other.receiver("q", 16).await;
    log.consume(&other, 1, &late);
    fixture
        .eventually("the latecomer gets some", async || {
            sent.extend(fixture.fill("q", 64).await);
            (log.consumers() == 2).then_some(())
        })
        .await;
    fixture.depth("q", 0).await;
    assert_eq!(sorted(log.all().into_iter().map(|(_, id)| id).collect()), sorted(sent));
    early.close().await;
    late.close().await;
}

/// Consumers come and go, cleanly, while messages flow: each message is seen once.
pub async fn coming_and_going_loses_nothing(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let log = Log::default();
    let mut sent = Vec::new();
    let steady = fixture.receiver("q", 16).await;
    log.consume(&fixture, 0, &steady);
    for number in 1..6 {
        let process = fixture.again().await;
        let receiver = process.receiver("q", 16).await;
        sent.extend(fixture.fill("q", 100).await);
        let got = fixture.runtime.timeout(crate::transport::fixture::GLANCE, receiver.next(8)).await;
        let got = got.map(Result::unwrap).unwrap_or_default();
        receiver.stop().await;
        log.0.lock().unwrap().extend(ids(&got).into_iter().map(|id| (number, id)));
        process.settle(&receiver, &got, Settle::Done).await;
        receiver.close().await;
    }
    fixture.depth("q", 0).await;
    assert_eq!(sorted(log.all().into_iter().map(|(_, id)| id).collect()), sorted(sent));
    steady.close().await;
}
