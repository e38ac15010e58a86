//! Back-pressure: never more out than the window.

use crate::transport::Bed;
use sagabus_core::Settle;

/// Not more than the window is out, however often one asks.
pub async fn it_bounds_what_is_out(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 300).await;
    let receiver = bed.receiver("q", 50).await;
    bed.take(&receiver, 50).await;
    bed.nothing(&receiver).await;
}

/// `next` hands out at most what it was asked for.
pub async fn next_hands_out_at_most_max(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 100).await;
    let receiver = bed.receiver("q", 100).await;
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
pub async fn of_one(bed: Bed) {
    bed.queue("q", &[]).await;
    let sent = bed.fill("q", 10).await;
    let receiver = bed.receiver("q", 1).await;
    for _ in &sent {
        let got = receiver.next(10).await.unwrap();
        assert_eq!(got.len(), 1);
        bed.settle(&receiver, &got, Settle::Done).await;
    }
    bed.depth("q", 0).await;
}

/// Each settled one makes room for one, in whichever way it was settled.
pub async fn settling_opens_it(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 100).await;
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 10).await;
    for (at, settle) in [Settle::Done, Settle::Requeue, Settle::Return].into_iter().enumerate() {
        bed.settle(&receiver, &got[at..=at], settle).await;
        bed.take(&receiver, 1).await;
        bed.nothing(&receiver).await;
    }
}

/// A `next` that waits for the window wakes when it opens.
pub async fn a_waiting_next_wakes(bed: Bed) {
    bed.queue("q", &[]).await;
    bed.fill("q", 2).await;
    let receiver = bed.receiver("q", 1).await;
    let first = bed.take(&receiver, 1).await;
    let waiting = {
        let (bed, receiver) = (bed.clone(), receiver.clone());
        bed.runtime.clone().spawn(async move { bed.take(&receiver, 1).await })
    };
    bed.nothing(&receiver).await;
    bed.settle(&receiver, &first, Settle::Done).await;
    assert_eq!(waiting.join().await.map(|got| got.len()), Some(1));
}

/// Each consumer has its own.
pub async fn each_consumer_has_its_own(bed: Bed) {
    bed.queue("a", &[]).await;
    bed.queue("b", &[]).await;
    bed.fill("a", 10).await;
    bed.fill("b", 10).await;
    let (a, b) = (bed.receiver("a", 3).await, bed.receiver("b", 5).await);
    bed.take(&a, 3).await;
    bed.take(&b, 5).await;
    bed.nothing(&a).await;
    bed.nothing(&b).await;
}
