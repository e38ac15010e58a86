//! Much at once, nothing for long, and late comers.

use crate::transport::{
    Fixture,
    fixture::{PATIENCE, ids, sorted},
};
use sagabus_core::{MessageId, Settle};
use std::{collections::BTreeSet, time::Duration};

/// Twenty thousand messages wait: each comes once.
pub async fn a_backlog(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent: BTreeSet<MessageId> = fixture.fill("q", 20_000).await.into_iter().collect();
    let receiver = fixture.receiver("q", 500).await;
    let mut seen = BTreeSet::new();
    while seen.len() < sent.len() {
        let got = fixture.runtime.timeout(PATIENCE, receiver.next(200)).await.expect("more to come").unwrap();
        for id in ids(&got) {
            assert!(seen.insert(id), "{id} came twice");
        }
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    assert!(seen == sent);
    fixture.depth("q", 0).await;
}

/// Eight publishers at once, while two consumers take: each message comes once.
pub async fn concurrent_publishers(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let fixture = fixture.clone();
            fixture.runtime.clone().spawn(async move {
                let process = fixture.again().await;
                let mut sent = Vec::new();
                for _ in 0..10 {
                    sent.extend(process.fill("q", 50).await);
                }
                sent
            })
        })
        .collect();
    let receiver = fixture.receiver("q", 200).await;
    let got = fixture.take(&receiver, 200).await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    let mut seen = ids(&got);
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.extend(publisher.join().await.expect("no panic"));
    }
    assert_eq!(sent.len(), 4000);
    while seen.len() < sent.len() {
        let got = fixture.runtime.timeout(PATIENCE, receiver.next(200)).await.expect("more to come").unwrap();
        seen.extend(ids(&got));
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    assert_eq!(sorted(seen), sorted(sent));
    fixture.depth("q", 0).await;
}

/// At rest, a message is handed out at once, sent by this process or by another one.
pub async fn waking_up_is_prompt(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let receiver = fixture.receiver("q", 10).await;
    let other = fixture.again().await;
    for sender in [&fixture, &other] {
        let mut times = Vec::new();
        for _ in 0..15 {
            fixture.runtime.sleep(Duration::from_millis(30)).await; // what is measured begins at rest
            sender.fill("q", 1).await;
            let start = fixture.runtime.elapsed();
            let got = fixture.take(&receiver, 1).await;
            times.push(fixture.runtime.elapsed() - start);
            fixture.settle(&receiver, &got, Settle::Done).await;
        }
        times.sort_unstable();
        assert!(times[7] < Duration::from_millis(50), "half of them take longer than {:?}", times[7]);
    }
}

/// One at a time, for a while: each is handed out while nothing else happens.
pub async fn a_trickle(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let receiver = fixture.receiver("q", 10).await;
    for _ in 0..200 {
        let sent = fixture.fill("q", 1).await;
        let got = fixture.take(&receiver, 1).await;
        assert_eq!(ids(&got), sent);
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    fixture.depth("q", 0).await;
}

/// A message that becomes visible late, behind those that were already handed out, is found: at rest.
pub async fn late_messages_at_rest(fixture: Fixture) {
    late(fixture, 5, false).await;
}

/// And while there is always something ahead.
pub async fn late_messages_under_load(fixture: Fixture) {
    late(fixture, 3000, true).await;
}

async fn late(fixture: Fixture, after: usize, load: bool) {
    fixture.queue("q", &[]).await;
    let hidden = fixture.message("late");
    let id = hidden.headers.message_id;
    if !fixture.harness.hide(id).await {
        return;
    }
    fixture.send("q", vec![hidden]).await;
    let sent = fixture.fill("q", after).await;
    let receiver = fixture.receiver("q", 100).await;
    // some stay in flight, so that the rest lies behind what is known
    let held = fixture.take(&receiver, 3).await;
    let rest: Vec<MessageId> = sent.iter().copied().filter(|id| !ids(&held).contains(id)).collect();
    let mut seen = BTreeSet::new();
    if !load {
        fixture.drain(&receiver, &rest).await;
        fixture.nothing(&receiver).await;
    }
    fixture.harness.reveal(id).await;
    let start = fixture.runtime.elapsed();
    while !seen.contains(&id) {
        assert!(fixture.runtime.elapsed() - start < PATIENCE, "it is never found");
        if load {
            fixture.fill("q", 100).await;
        }
        let got = fixture.runtime.timeout(PATIENCE, receiver.next(100)).await.expect("the late one comes").unwrap();
        seen.extend(ids(&got));
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    fixture.settle(&receiver, &held, Settle::Done).await;
}

/// Long handlers: what is in flight for longer than a lease is not handed out again.
pub async fn long_handlers_keep_their_messages(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 20).await;
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, 10).await;
    let other = fixture.again().await;
    let second = other.receiver("q", 100).await;
    let wait = fixture.harness.lease() * 2;
    let mut elsewhere = Vec::new();
    let start = fixture.runtime.elapsed();
    while fixture.runtime.elapsed() - start < wait {
        if let Some(more) = fixture.runtime.timeout(Duration::from_millis(100), second.next(100)).await {
            elsewhere.extend(more.unwrap());
        }
    }
    assert!(ids(&elsewhere).iter().all(|id| !ids(&got).contains(id)));
    fixture.settle(&receiver, &got, Settle::Done).await;
    other.settle(&second, &elsewhere, Settle::Done).await;
}
