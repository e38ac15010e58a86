//! What becomes of a delivery.

use crate::transport::{
    Bed,
    bed::{ids, sorted, text},
};
use sagabus_core::{Settle, Settlement, Token};
use std::time::Duration;

/// Done removes it for good.
pub async fn done_removes(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 10).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 10).await;
    bed.settle(&receiver, &got, Settle::Done).await;
    bed.depth("q", 0).await;
    bed.nothing(&receiver).await;
    receiver.close().await;
    let next = bed.again().await.receiver("q", 10).await;
    bed.nothing(&next).await;
}

/// What is not settled is still there.
pub async fn unsettled_stays(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 3).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 3).await;
    bed.settle(&receiver, &got[..1], Settle::Done).await;
    bed.depth("q", 2).await;
    bed.nothing(&receiver).await;
}

/// In any order, in parts.
pub async fn any_order(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 30).await;
    let receiver = bed.receiver("q", 100).await;
    let mut got = bed.take(&receiver, 30).await;
    got.reverse();
    for part in got.chunks(7) {
        bed.settle(&receiver, part, Settle::Done).await;
    }
    bed.depth("q", 0).await;
}

/// A crash: what was handed out comes again, to whoever is left, and is suspect; what is sent later is not.
pub async fn a_crash_redelivers_as_suspect(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent = bed.fill("q", 10).await;
    let first = bed.again().await;
    let receiver = first.receiver("q", 10).await;
    let got = first.take(&receiver, 10).await;
    first.settle(&receiver, &got[..4], Settle::Done).await;
    drop((receiver, first));
    let second = bed.receiver("q", 100).await;
    let again = bed.take(&second, 6).await;
    assert_eq!(sorted(ids(&again)), sorted(ids(&got[4..])));
    assert!(again.iter().all(|d| d.suspect), "they may have killed the process");
    bed.settle(&second, &again, Settle::Done).await;
    bed.depth("q", 0).await;
    assert_eq!(sent.len(), 10);
    bed.eventually("a later message that is not suspect", async || {
        bed.fill("q", 1).await;
        let later = bed.take(&second, 1).await;
        bed.settle(&second, &later, Settle::Done).await;
        (!later[0].suspect).then_some(())
    })
    .await;
}

/// Requeued, it comes again after a pause.
pub async fn requeue_redelivers(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent = bed.fill("q", 3).await;
    let receiver = bed.receiver("q", 100).await;
    for _ in 0..3 {
        let got = bed.take(&receiver, 3).await;
        assert_eq!(sorted(ids(&got)), sorted(sent.clone()));
        bed.settle(&receiver, &got, Settle::Requeue).await;
    }
    bed.drain(&receiver, &sent).await;
    bed.depth("q", 0).await;
}

/// Requeued, it does not come again in a busy loop.
pub async fn requeue_pauses(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 1).await;
    let receiver = bed.receiver("q", 100).await;
    let start = bed.runtime.elapsed();
    for _ in 0..10 {
        let got = bed.take(&receiver, 1).await;
        bed.settle(&receiver, &got, Settle::Requeue).await;
    }
    let took = bed.runtime.elapsed() - start;
    assert!(took >= Duration::from_millis(100), "ten rounds in {took:?}");
}

/// While one is requeued over and over, the others pass.
pub async fn requeue_holds_nobody_back(bed: Bed) {
    bed.queue("q", &[]).await;
    let bad = bed.fill("q", 1).await;
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 1).await;
    bed.settle(&receiver, &got, Settle::Requeue).await;
    let good = bed.fill("q", 200).await;
    let mut done = Vec::new();
    let mut rounds = 0;
    while done.len() < good.len() {
        rounds += 1;
        assert!(rounds < 1000, "a requeue does not pause, or does not hold");
        let (stuck, fine): (Vec<_>, Vec<_>) =
            bed.take(&receiver, 1).await.into_iter().partition(|d| d.message.headers.message_id == bad[0]);
        bed.settle(&receiver, &stuck, Settle::Requeue).await;
        bed.settle(&receiver, &fine, Settle::Done).await;
        done.extend(ids(&fine));
    }
    assert_eq!(sorted(done), sorted(good));
    bed.depth("q", 1).await;
}

/// Returned, it is available at once.
pub async fn return_redelivers_at_once(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent = bed.fill("q", 3).await;
    let receiver = bed.receiver("q", 100).await;
    let start = bed.runtime.elapsed();
    for _ in 0..20 {
        let got = bed.take(&receiver, 3).await;
        bed.settle(&receiver, &got, Settle::Return).await;
    }
    let took = bed.runtime.elapsed() - start;
    assert!(took < Duration::from_secs(5), "twenty rounds in {took:?}");
    assert_eq!(bed.drain(&receiver, &sent).await.len(), 3);
    bed.depth("q", 0).await;
}

/// Every way of settling in one call.
pub async fn mixed_settlements(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 90).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 90).await;
    let settlements = got
        .iter()
        .zip([Settle::Done, Settle::Requeue, Settle::Return].into_iter().cycle())
        .map(|(delivery, settle)| Settlement { token: delivery.token, settle })
        .collect();
    receiver.settle(settlements).await.unwrap();
    bed.depth("q", 60).await;
    let back: Vec<_> = got.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, d)| d.clone()).collect();
    let seen = bed.drain(&receiver, &ids(&back)).await;
    assert_eq!(seen.len(), 60);
    assert!(seen.values().all(|n| *n == 1));
    bed.depth("q", 0).await;
}

/// Many requeues and returns at random lose nothing.
pub async fn random_settlements_lose_nothing(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent = bed.fill("q", 500).await;
    let receiver = bed.receiver("q", 64).await;
    let mut done = Vec::new();
    while done.len() < sent.len() {
        let got = bed.take(&receiver, 1).await;
        let settle = match bed.runtime.random() % 4 {
            0 => Settle::Requeue,
            1 => Settle::Return,
            _ => Settle::Done,
        };
        bed.settle(&receiver, &got, settle).await;
        if settle == Settle::Done {
            done.extend(ids(&got));
        }
    }
    assert_eq!(sorted(done), sorted(sent));
    bed.depth("q", 0).await;
}

/// Settling twice, also differently, changes nothing.
pub async fn settling_twice_is_harmless(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 2).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 2).await;
    for settle in [Settle::Done, Settle::Done, Settle::Requeue, Settle::Return] {
        bed.settle(&receiver, &got[..1], settle).await;
    }
    bed.depth("q", 1).await;
    bed.nothing(&receiver).await;
}

/// A token that was never given is ignored.
pub async fn a_made_up_token_is_ignored(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 1).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 1).await;
    for token in [
        Token { epoch: u64::MAX, position: got[0].token.position },
        Token { epoch: got[0].token.epoch, position: u64::MAX },
        Token { epoch: 0, position: 0 },
    ] {
        if token != got[0].token {
            receiver.settle(vec![Settlement { token, settle: Settle::Done }]).await.unwrap();
        }
    }
    receiver.settle(Vec::new()).await.unwrap();
    bed.depth("q", 1).await;
    bed.settle(&receiver, &got, Settle::Done).await;
    bed.depth("q", 0).await;
}

/// The token of a first delivery does not settle the second one.
pub async fn a_requeued_token_is_spent(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 1).await;
    let receiver = bed.receiver("q", 100).await;
    let first = bed.take(&receiver, 1).await;
    bed.settle(&receiver, &first, Settle::Requeue).await;
    bed.settle(&receiver, &first, Settle::Done).await;
    let second = bed.take(&receiver, 1).await;
    assert_eq!(text(&first[0]), text(&second[0]));
    bed.settle(&receiver, &second, Settle::Done).await;
    bed.depth("q", 0).await;
}

/// Many tasks settle at once.
pub async fn settling_at_once(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 400).await;
    let receiver = bed.receiver("q", 400).await;
    let got = bed.take(&receiver, 400).await;
    let tasks: Vec<_> = got
        .chunks(10)
        .map(|part| {
            let (bed, receiver, part) = (bed.clone(), receiver.clone(), part.to_vec());
            bed.runtime.clone().spawn(async move { bed.settle(&receiver, &part, Settle::Done).await })
        })
        .collect();
    for task in tasks {
        task.join().await.expect("settling works");
    }
    bed.depth("q", 0).await;
}
