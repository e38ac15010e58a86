//! Order per key, where it is kept.

use crate::transport::{
    Fixture,
    cases::missing::no_order,
    fixture::{PATIENCE, text},
};
use sagabus_core::{Delivery, Envelope, Receiver, Settle};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const KEYS: u32 = 8;

/// Interleaved messages of several keys.
fn interleaved(fixture: &Fixture, numbers: std::ops::Range<u32>) -> Vec<Envelope> {
    let key = |k: u32| format!("key-{k}");
    numbers.flat_map(|n| (0..KEYS).flat_map(move |k| fixture.keyed(&key(k), n..n + 1))).collect()
}

/// What came of each key, in order.
#[derive(Default)]
struct Seen(BTreeMap<String, Vec<u32>>);

impl Seen {
    fn add(&mut self, delivery: &Delivery) {
        let key = delivery.message.headers.order_key.clone().unwrap();
        self.0.entry(key).or_default().push(text(delivery).parse().unwrap());
    }

    /// Repeats are allowed (after a crash), gaps and steps back to something that was never seen are not: the first
    /// sights of each key are in order.
    fn check(&self, count: u32) {
        assert_eq!(self.0.len(), KEYS as usize);
        for (key, numbers) in &self.0 {
            let mut known = BTreeSet::new();
            let first: Vec<u32> = numbers.iter().copied().filter(|n| known.insert(*n)).collect();
            assert_eq!(first, (0..count).collect::<Vec<u32>>(), "{key}: {numbers:?}");
        }
    }

    fn complete(&self, count: usize) -> bool {
        let distinct = |numbers: &Vec<u32>| numbers.iter().collect::<BTreeSet<_>>().len();
        self.0.values().map(distinct).sum::<usize>() >= KEYS as usize * count
    }
}

/// One consumer sees each key in order.
pub async fn one_consumer(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", interleaved(&fixture, 0..50)).await;
    let (receiver, _) = fixture.ordered("q", 20).await;
    let mut seen = Seen::default();
    while !seen.complete(50) {
        let got = fixture.take(&receiver, 1).await;
        got.iter().for_each(|d| seen.add(d));
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    seen.check(50);
}

/// Takes in turn from several consumers, who hold what they have for a while, and settle it in order.
async fn take_turns(
    fixture: &Fixture,
    receivers: &[Arc<dyn Receiver>],
    seen: &mut Seen,
    until: impl Fn(&Seen) -> bool,
) {
    let start = fixture.runtime.elapsed();
    let mut held: BTreeMap<usize, Vec<Delivery>> = BTreeMap::new();
    while !until(seen) {
        assert!(fixture.runtime.elapsed() - start < PATIENCE, "waited in vain for the rest");
        for (number, receiver) in receivers.iter().enumerate() {
            if let Some(done) = held.remove(&number) {
                fixture.settle(receiver, &done, Settle::Done).await;
            }
            if let Some(got) = fixture.runtime.timeout(Duration::from_millis(20), receiver.next(5)).await {
                let got = got.unwrap();
                got.iter().for_each(|d| seen.add(d));
                held.insert(number, got);
            }
        }
    }
    for (number, done) in held {
        fixture.settle(&receivers[number], &done, Settle::Done).await;
    }
}

/// Two consumers: each key is with one of them at a time, in order.
pub async fn two_consumers(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    let other = fixture.again().await;
    let receivers = [fixture.ordered("q", 20).await.0, other.ordered("q", 20).await.0];
    fixture.send("q", interleaved(&fixture, 0..30)).await;
    let mut seen = Seen::default();
    take_turns(&fixture, &receivers, &mut seen, |seen| seen.complete(30)).await;
    seen.check(30);
}

/// What one consumer has in flight of a key keeps the others away from that key.
pub async fn a_key_is_with_one_consumer(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", fixture.keyed("k", 0..10)).await;
    let (one, _) = fixture.ordered("q", 2).await;
    let first = fixture.take(&one, 2).await;
    let other = fixture.again().await;
    let (two, _) = other.ordered("q", 10).await;
    fixture.nothing(&two).await;
    fixture.nothing(&one).await;
    fixture.settle(&one, &first, Settle::Done).await;
    let mut seen = Seen::default();
    first.iter().for_each(|d| seen.add(d));
    take_turns(&fixture, &[one, two], &mut seen, |seen| seen.0["k"].len() == 10).await;
    assert_eq!(seen.0["k"], (0..10).collect::<Vec<u32>>());
}

/// A consumer leaves cleanly: the next one goes on where it was.
pub async fn across_a_clean_take_over(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", interleaved(&fixture, 0..20)).await;
    let mut seen = Seen::default();
    for _ in 0..3 {
        let process = fixture.again().await;
        let (receiver, _) = process.ordered("q", 20).await;
        let got = process.take(&receiver, 20).await;
        got.iter().take(15).for_each(|d| seen.add(d));
        receiver.stop().await;
        process.settle(&receiver, &got[..15], Settle::Done).await;
        process.settle(&receiver, &got[15..], Settle::Return).await;
        receiver.close().await;
    }
    let (receiver, _) = fixture.ordered("q", 20).await;
    take_turns(&fixture, &[receiver], &mut seen, |seen| seen.complete(20)).await;
    seen.check(20);
}

/// A consumer dies: the next one repeats what was not settled, and goes on in order.
pub async fn across_a_crash(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", interleaved(&fixture, 0..20)).await;
    let mut seen = Seen::default();
    let process = fixture.again().await;
    let (receiver, _) = process.ordered("q", 40).await;
    let got = process.take(&receiver, 40).await;
    got.iter().for_each(|d| seen.add(d));
    process.settle(&receiver, &got[..13], Settle::Done).await;
    drop((receiver, process));
    let (receiver, _) = fixture.ordered("q", 20).await;
    take_turns(&fixture, &[receiver], &mut seen, |seen| seen.complete(20)).await;
    seen.check(20);
    let repeated = seen.0.values().map(Vec::len).sum::<usize>() - KEYS as usize * 20;
    assert_eq!(repeated, 40 - 13, "what was not settled came again, once");
}

/// A returned message comes again before those that follow it.
pub async fn return_keeps_it(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", fixture.keyed("k", 0..20)).await;
    let (receiver, _) = fixture.ordered("q", 1).await;
    let mut order = Vec::new();
    let mut tries = 0;
    while order.len() < 20 {
        let got = fixture.take(&receiver, 1).await;
        tries += 1;
        if tries % 3 == 0 {
            fixture.settle(&receiver, &got, Settle::Return).await;
        } else {
            order.push(text(&got[0]).parse::<u32>().unwrap());
            fixture.settle(&receiver, &got, Settle::Done).await;
        }
    }
    assert_eq!(order, (0..20).collect::<Vec<u32>>());
    assert!(tries > 20);
}

/// A return of several in flight brings them all back, in order, before the rest.
pub async fn returning_several_keeps_it(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", fixture.keyed("k", 0..30)).await;
    let (receiver, _) = fixture.ordered("q", 10).await;
    let mut got = fixture.take(&receiver, 10).await;
    got.reverse();
    fixture.settle(&receiver, &got, Settle::Return).await;
    let again = fixture.take(&receiver, 10).await;
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Messages without a key have no order, and all arrive.
pub async fn no_key_no_order(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 40).await;
    let (receiver, _) = fixture.ordered("q", 10).await;
    assert_eq!(fixture.drain(&receiver, &sent).await.len(), 40);
    fixture.depth("q", 0).await;
}
