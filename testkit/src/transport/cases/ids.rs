//! The same id twice.

use crate::transport::{Fixture, cases::missing::no_topics, fixture::ids};
use sagabus_core::{Destination, Outgoing, Settle};

/// How many deliveries of one id are right when it was sent so often.
fn expected(fixture: &Fixture, sent: usize) -> usize {
    if fixture.harness.promises().deduplicates { 1 } else { sent }
}

/// Sent again after an unknown outcome: one delivery where that is promised, else as many as were sent.
pub async fn sent_again(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let message = fixture.message("x");
    for _ in 0..3 {
        fixture.again().await.send("q", vec![message.clone()]).await;
    }
    let count = expected(&fixture, 3);
    fixture.depth("q", count as u64).await;
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, count).await;
    assert!(ids(&got).iter().all(|id| *id == message.headers.message_id));
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.nothing(&receiver).await;
    fixture.depth("q", 0).await;
}

/// Also after the first one was handled and is gone.
pub async fn sent_again_after_it_was_handled(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let message = fixture.message("x");
    fixture.send("q", vec![message.clone()]).await;
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, 1).await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.send("q", vec![message]).await;
    fixture.depth("q", expected(&fixture, 2) as u64 - 1).await;
}

/// Also within one batch.
pub async fn twice_in_a_batch(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let message = fixture.message("x");
    fixture.send("q", vec![message.clone(), fixture.message("y"), message]).await;
    fixture.depth("q", expected(&fixture, 2) as u64 + 1).await;
}

/// The same id to two queues is two messages.
pub async fn to_two_queues(fixture: Fixture) {
    fixture.queue("a", &[]).await;
    fixture.queue("b", &[]).await;
    let message = fixture.message("x");
    let batch = ["a", "b"].map(|q| Outgoing { to: Destination::Queue(q.into()), message: message.clone() });
    assert!(fixture.transport.send_batch(&batch).await.iter().all(|o| o.is_done()));
    fixture.depth("a", 1).await;
    fixture.depth("b", 1).await;
}

/// An event that is published again reaches each subscriber once where that is promised.
pub async fn published_again(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("a", &["kit.event"]).await;
    let message = fixture.message("x");
    fixture.publish("kit.event", vec![message.clone()]).await;
    fixture.queue("b", &["kit.event"]).await;
    fixture.publish("kit.event", vec![message]).await;
    fixture.depth("a", expected(&fixture, 2) as u64).await;
    fixture.depth("b", 1).await;
}
