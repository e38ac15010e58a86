//! The same id twice.

use crate::transport::{Bed, bed::ids, cases::missing::no_topics};
use sagabus_core::{Destination, Outgoing, Settle};

/// How many deliveries of one id are right when it was sent so often.
fn expected(bed: &Bed, sent: usize) -> usize {
    if bed.harness.promises().deduplicates { 1 } else { sent }
}

/// Sent again after an unknown outcome: one delivery where that is promised, else as many as were sent.
pub async fn sent_again(bed: Bed) {
    bed.queue("q", &[]).await;
    let message = bed.message("x");
    for _ in 0..3 {
        bed.again().await.send("q", vec![message.clone()]).await;
    }
    let count = expected(&bed, 3);
    bed.depth("q", count as u64).await;
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, count).await;
    assert!(ids(&got).iter().all(|id| *id == message.headers.message_id));
    bed.settle(&receiver, &got, Settle::Done).await;
    bed.nothing(&receiver).await;
    bed.depth("q", 0).await;
}

/// Also after the first one was handled and is gone.
pub async fn sent_again_after_it_was_handled(bed: Bed) {
    bed.queue("q", &[]).await;
    let message = bed.message("x");
    bed.send("q", vec![message.clone()]).await;
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 1).await;
    bed.settle(&receiver, &got, Settle::Done).await;
    bed.send("q", vec![message]).await;
    bed.depth("q", expected(&bed, 2) as u64 - 1).await;
}

/// Also within one batch.
pub async fn twice_in_a_batch(bed: Bed) {
    bed.queue("q", &[]).await;
    let message = bed.message("x");
    bed.send("q", vec![message.clone(), bed.message("y"), message]).await;
    bed.depth("q", expected(&bed, 2) as u64 + 1).await;
}

/// The same id to two queues is two messages.
pub async fn to_two_queues(bed: Bed) {
    bed.queue("a", &[]).await;
    bed.queue("b", &[]).await;
    let message = bed.message("x");
    let batch = ["a", "b"].map(|q| Outgoing { to: Destination::Queue(q.into()), message: message.clone() });
    assert!(bed.transport.send_batch(&batch).await.iter().all(|o| o.is_done()));
    bed.depth("a", 1).await;
    bed.depth("b", 1).await;
}

/// An event that is published again reaches each subscriber once where that is promised.
pub async fn published_again(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("a", &["kit.event"]).await;
    let message = bed.message("x");
    bed.publish("kit.event", vec![message.clone()]).await;
    bed.queue("b", &["kit.event"]).await;
    bed.publish("kit.event", vec![message]).await;
    bed.depth("a", expected(&bed, 2) as u64).await;
    bed.depth("b", 1).await;
}
