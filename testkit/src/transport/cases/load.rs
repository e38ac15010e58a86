//! Much at once, nothing for long, and late comers.

use crate::transport::{
    Bed,
    bed::{PATIENCE, ids, sorted},
};
use sagabus_core::{MessageId, Settle};
use std::{collections::BTreeSet, time::Duration};

/// Twenty thousand messages wait: each comes once.
pub async fn a_backlog(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent: BTreeSet<MessageId> = bed.fill("q", 20_000).await.into_iter().collect();
    let receiver = bed.receiver("q", 500).await;
    let mut seen = BTreeSet::new();
    while seen.len() < sent.len() {
        let got = bed.runtime.timeout(PATIENCE, receiver.next(200)).await.expect("more to come").unwrap();
        for id in ids(&got) {
            assert!(seen.insert(id), "{id} came twice");
        }
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    assert!(seen == sent);
    bed.depth("q", 0).await;
}

/// Eight publishers at once, while two consumers take: each message comes once.
pub async fn concurrent_publishers(bed: Bed) {
    bed.queue("q", &[]).await;
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let bed = bed.clone();
            bed.runtime.clone().spawn(async move {
                let process = bed.again().await;
                let mut sent = Vec::new();
                for _ in 0..10 {
                    sent.extend(process.fill("q", 50).await);
                }
                sent
            })
        })
        .collect();
    let receiver = bed.receiver("q", 200).await;
    let got = bed.take(&receiver, 200).await;
    bed.settle(&receiver, &got, Settle::Done).await;
    let mut seen = ids(&got);
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.extend(publisher.join().await.expect("no panic"));
    }
    assert_eq!(sent.len(), 4000);
    while seen.len() < sent.len() {
        let got = bed.runtime.timeout(PATIENCE, receiver.next(200)).await.expect("more to come").unwrap();
        seen.extend(ids(&got));
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    assert_eq!(sorted(seen), sorted(sent));
    bed.depth("q", 0).await;
}

/// At rest, a message is handed out at once, sent by this process or by another one.
pub async fn waking_up_is_prompt(bed: Bed) {
    bed.queue("q", &[]).await;
    let receiver = bed.receiver("q", 10).await;
    let other = bed.again().await;
    for sender in [&bed, &other] {
        let mut times = Vec::new();
        for _ in 0..15 {
            bed.runtime.sleep(Duration::from_millis(30)).await; // what is measured begins at rest
            sender.fill("q", 1).await;
            let start = bed.runtime.elapsed();
            let got = bed.take(&receiver, 1).await;
            times.push(bed.runtime.elapsed() - start);
            bed.settle(&receiver, &got, Settle::Done).await;
        }
        times.sort_unstable();
        assert!(times[7] < Duration::from_millis(50), "half of them take longer than {:?}", times[7]);
    }
}

/// One at a time, for a while: each is handed out while nothing else happens.
pub async fn a_trickle(bed: Bed) {
    bed.queue("q", &[]).await;
    let receiver = bed.receiver("q", 10).await;
    for _ in 0..200 {
        let sent = bed.fill("q", 1).await;
        let got = bed.take(&receiver, 1).await;
        assert_eq!(ids(&got), sent);
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    bed.depth("q", 0).await;
}

/// A message that becomes visible late, behind those that were already handed out, is found: at rest.
pub async fn late_messages_at_rest(bed: Bed) {
    late(bed, 5, false).await;
}

/// And while there is always something ahead.
pub async fn late_messages_under_load(bed: Bed) {
    late(bed, 3000, true).await;
}

async fn late(bed: Bed, after: usize, load: bool) {
    bed.queue("q", &[]).await;
    let hidden = bed.message("late");
    let id = hidden.headers.message_id;
    if !bed.harness.hide(id).await {
        return;
    }
    bed.send("q", vec![hidden]).await;
    let sent = bed.fill("q", after).await;
    let receiver = bed.receiver("q", 100).await;
    // some stay in flight, so that the rest lies behind what is known
    let held = bed.take(&receiver, 3).await;
    let rest: Vec<MessageId> = sent.iter().copied().filter(|id| !ids(&held).contains(id)).collect();
    let mut seen = BTreeSet::new();
    if !load {
        bed.drain(&receiver, &rest).await;
        bed.nothing(&receiver).await;
    }
    bed.harness.reveal(id).await;
    let start = bed.runtime.elapsed();
    while !seen.contains(&id) {
        assert!(bed.runtime.elapsed() - start < PATIENCE, "it is never found");
        if load {
            bed.fill("q", 100).await;
        }
        let got = bed.runtime.timeout(PATIENCE, receiver.next(100)).await.expect("the late one comes").unwrap();
        seen.extend(ids(&got));
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    bed.settle(&receiver, &held, Settle::Done).await;
}

/// Long handlers: what is in flight for longer than a lease is not handed out again.
pub async fn long_handlers_keep_their_messages(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 20).await;
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 10).await;
    let other = bed.again().await;
    let second = other.receiver("q", 100).await;
    let wait = bed.harness.lease() * 2;
    let mut elsewhere = Vec::new();
    let start = bed.runtime.elapsed();
    while bed.runtime.elapsed() - start < wait {
        if let Some(more) = bed.runtime.timeout(Duration::from_millis(100), second.next(100)).await {
            elsewhere.extend(more.unwrap());
        }
    }
    assert!(ids(&elsewhere).iter().all(|id| !ids(&got).contains(id)));
    bed.settle(&receiver, &got, Settle::Done).await;
    other.settle(&second, &elsewhere, Settle::Done).await;
}
