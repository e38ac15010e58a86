//! What becomes of a delivery.

use crate::transport::{
    Fixture,
    fixture::{ids, sorted, text},
};
use sagabus_core::{Settle, Settlement, Token};
use std::time::Duration;

/// Done removes it for good.
pub async fn done_removes(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 10).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 10).await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 0).await;
    fixture.nothing(&receiver).await;
    receiver.close().await;
    let next = fixture.again().await.receiver("q", 10).await;
    fixture.nothing(&next).await;
}

/// What is not settled is still there.
pub async fn unsettled_stays(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 3).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 3).await;
    fixture.settle(&receiver, &got[..1], Settle::Done).await;
    fixture.depth("q", 2).await;
    fixture.nothing(&receiver).await;
}

/// In any order, in parts.
pub async fn any_order(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 30).await;
    let receiver = fixture.receiver("q", 100).await;
    let mut got = fixture.take(&receiver, 30).await;
    got.reverse();
    for part in got.chunks(7) {
        fixture.settle(&receiver, part, Settle::Done).await;
    }
    fixture.depth("q", 0).await;
}

/// A crash: what was handed out comes again, to whoever is left, and is suspect; what is sent later is not.
pub async fn a_crash_redelivers_as_suspect(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 10).await;
    let first = fixture.again().await;
    let receiver = first.receiver("q", 10).await;
    let got = first.take(&receiver, 10).await;
    first.settle(&receiver, &got[..4], Settle::Done).await;
    drop((receiver, first));
    let second = fixture.receiver("q", 100).await;
    let again = fixture.take(&second, 6).await;
    assert_eq!(sorted(ids(&again)), sorted(ids(&got[4..])));
    assert!(again.iter().all(|d| d.suspect), "they may have killed the process");
    fixture.settle(&second, &again, Settle::Done).await;
    fixture.depth("q", 0).await;
    assert_eq!(sent.len(), 10);
    fixture
        .eventually("a later message that is not suspect", async || {
            fixture.fill("q", 1).await;
            let later = fixture.take(&second, 1).await;
            fixture.settle(&second, &later, Settle::Done).await;
            (!later[0].suspect).then_some(())
        })
        .await;
}

/// Returned, it is available at once.
pub async fn return_redelivers_at_once(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 3).await;
    let receiver = fixture.receiver("q", 100).await;
    let start = fixture.runtime.elapsed();
    for _ in 0..20 {
        let got = fixture.take(&receiver, 3).await;
        fixture.settle(&receiver, &got, Settle::Return).await;
    }
    let took = fixture.runtime.elapsed() - start;
    assert!(took < Duration::from_secs(5), "twenty rounds in {took:?}");
    assert_eq!(fixture.drain(&receiver, &sent).await.len(), 3);
    fixture.depth("q", 0).await;
}

/// Every way of settling in one call.
pub async fn mixed_settlements(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 90).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 90).await;
    let settlements = got
        .iter()
        .zip([Settle::Done, Settle::Return].into_iter().cycle())
        .map(|(delivery, settle)| Settlement { token: delivery.token, settle })
        .collect();
    receiver.settle(settlements).await.unwrap();
    fixture.depth("q", 45).await;
    let back: Vec<_> = got.iter().enumerate().filter(|(n, _)| n % 2 != 0).map(|(_, d)| d.clone()).collect();
    let seen = fixture.drain(&receiver, &ids(&back)).await;
    assert_eq!(seen.len(), 45);
    assert!(seen.values().all(|n| *n == 1));
    fixture.depth("q", 0).await;
}

/// Many returns at random lose nothing.
pub async fn random_settlements_lose_nothing(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 500).await;
    let receiver = fixture.receiver("q", 64).await;
    let mut done = Vec::new();
    while done.len() < sent.len() {
        let got = fixture.take(&receiver, 1).await;
        let settle = if fixture.runtime.random().is_multiple_of(2) { Settle::Return } else { Settle::Done };
        fixture.settle(&receiver, &got, settle).await;
        if settle == Settle::Done {
            done.extend(ids(&got));
        }
    }
    assert_eq!(sorted(done), sorted(sent));
    fixture.depth("q", 0).await;
}

/// Settling twice, also differently, changes nothing.
pub async fn settling_twice_is_harmless(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 2).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 2).await;
    for settle in [Settle::Done, Settle::Done, Settle::Return] {
        fixture.settle(&receiver, &got[..1], settle).await;
    }
    fixture.depth("q", 1).await;
    fixture.nothing(&receiver).await;
}

/// A token that was never given is ignored.
pub async fn a_made_up_token_is_ignored(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 1).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 1).await;
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
    fixture.depth("q", 1).await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 0).await;
}

/// The token of a first delivery does not settle the second one.
pub async fn a_returned_token_is_spent(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 1).await;
    let receiver = fixture.receiver("q", 100).await;
    let first = fixture.take(&receiver, 1).await;
    fixture.settle(&receiver, &first, Settle::Return).await;
    fixture.settle(&receiver, &first, Settle::Done).await;
    let second = fixture.take(&receiver, 1).await;
    assert_eq!(text(&first[0]), text(&second[0]));
    fixture.settle(&receiver, &second, Settle::Done).await;
    fixture.depth("q", 0).await;
}

/// Many tasks settle at once.
pub async fn settling_at_once(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 400).await;
    let receiver = fixture.receiver("q", 400).await;
    let got = fixture.take(&receiver, 400).await;
    let tasks: Vec<_> = got
        .chunks(10)
        .map(|part| {
            let (fixture, receiver, part) = (fixture.clone(), receiver.clone(), part.to_vec());
            fixture.runtime.clone().spawn(async move { fixture.settle(&receiver, &part, Settle::Done).await })
        })
        .collect();
    for task in tasks {
        task.join().await.expect("settling works");
    }
    fixture.depth("q", 0).await;
}
