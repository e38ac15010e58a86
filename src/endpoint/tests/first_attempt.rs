//! Who says that a message is sent for the first time.

use super::at_least_once::{broker, queue, take};
use crate::{prelude::*, store::memory::MemoryStore, transport::memory::SendFault};
use sagabus_core::{Runtime, Store};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

message!(Job, "first.job");
message!(Passed, "first.passed");

async fn pass(job: Job, ctx: &mut Context) -> Result {
    ctx.send(Passed { order: job.order });
    Ok(())
}

#[tokio::test]
async fn what_is_sent_again_does_not_claim_to_be_the_first() {
    let (broker, transport) = broker();
    let sink = queue(&transport, "sink").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Runtime::system()));
    let endpoint = Endpoint::builder("pass")
        .transport(transport)
        .store(store)
        .on(pass)
        .route::<Passed>("sink")
        .build()
        .await
        .unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    // the job itself; then its output, whose confirm is lost
    broker.script_sends([None, Some(SendFault::LoseConfirm)]);
    bus.send(Job { order: 1 }).await.unwrap();
    let (one, two) = (take(&sink).await.message, take(&sink).await.message);
    assert_eq!(one.headers.message_id, two.headers.message_id);
    assert_eq!((one.headers.first_attempt, two.headers.first_attempt), (true, false));

    let chosen = bus.send(Passed { order: 2 }).await.unwrap();
    assert!(take(&sink).await.message.headers.first_attempt);
    bus.send_with(Passed { order: 2 }, SendOptions::new().id(chosen)).await.unwrap();
    assert!(!take(&sink).await.message.headers.first_attempt, "whoever chooses an id may have sent it before");
    running.stop().await.unwrap();
}
