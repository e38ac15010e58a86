//! Back-pressure: never more out than the window.

use crate::transport::Fixture;
use sagabus_core::Settle;

/// Not more than the window is out, however often one asks.
pub async fn it_bounds_what_is_out(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 300).await;
    let receiver = fixture.receiver("q", 50).await;
    fixture.take(&receiver, 50).await;
    fixture.nothing(&receiver).await;
}

/// `next` hands out at most what it was asked for.
pub async fn next_hands_out_at_most_max(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 100).await;
    let receiver = fixture.receiver("q", 100).await;
    let mut total = 0;
    while total < 100 {
        let max = 1 + total % 7;
        let got = receiver.next(max).await.unwrap();
        assert!((1..=max).contains(&got.len()), "{} of at most {max}", got.len());
        total += got.len();
    }
    assert_eq!(total, 100);
}

/// One at a time.
pub async fn of_one(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 10).await;
    let receiver = fixture.receiver("q", 1).await;
    for _ in &sent {
        let got = receiver.next(10).await.unwrap();
        assert_eq!(got.len(), 1);
        fixture.settle(&receiver, &got, Settle::Done).await;
    }
    fixture.depth("q", 0).await;
}

/// Each settled one makes room for one, in whichever way it was settled.
pub async fn settling_opens_it(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 100).await;
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, 10).await;
    for (at, settle) in [Settle::Done, Settle::Return].into_iter().enumerate() {
        fixture.settle(&receiver, &got[at..=at], settle).await;
        fixture.take(&receiver, 1).await;
        fixture.nothing(&receiver).await;
    }
}

/// A `next` that waits for the window wakes when it opens.
pub async fn a_waiting_next_wakes(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 2).await;
    let receiver = fixture.receiver("q", 1).await;
    let first = fixture.take(&receiver, 1).await;
    let waiting = {
        let (fixture, receiver) = (fixture.clone(), receiver.clone());
        fixture.runtime.clone().spawn(async move { fixture.take(&receiver, 1).await })
    };
    fixture.nothing(&receiver).await;
    fixture.settle(&receiver, &first, Settle::Done).await;
    assert_eq!(waiting.join().await.map(|got| got.len()), Some(1));
}

/// Each consumer has its own.
pub async fn each_consumer_has_its_own(fixture: Fixture) {
    fixture.queue("a", &[]).await;
    fixture.queue("b", &[]).await;
    fixture.fill("a", 10).await;
    fixture.fill("b", 10).await;
    let (a, b) = (fixture.receiver("a", 3).await, fixture.receiver("b", 5).await);
    fixture.take(&a, 3).await;
    fixture.take(&b, 5).await;
    fixture.nothing(&a).await;
    fixture.nothing(&b).await;
}
