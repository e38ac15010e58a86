//! Dead letters, and messages that nearly become one.

use super::at_least_once::{broker, queue, take};
use crate::{
    RunningEndpoint,
    admin::Cursor,
    prelude::*,
    store::memory::{Fault, MemoryStore, Operation, StoreFaults},
    transport::memory::SendFault,
};
use sagabus_core::{MessageId, Runtime, Store as _};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

message!(Lost, "burial.lost");
message!(Unknown, "burial.unknown");

async fn find(_: Lost, _: &mut Context) -> Result {
    Ok(())
}

async fn other(_: Unknown, _: &mut Context) -> Result {
    Ok(())
}

/// The first commit of an endpoint on this store fails.
fn failing_once(store: &MemoryStore) -> (StoreFaults, Arc<MemoryStore>) {
    let faults = StoreFaults::new().at(Operation::Commit, 1, Fault::Before);
    (faults.clone(), Arc::new(store.with_faults(faults)))
}

async fn until(running: &RunningEndpoint, what: impl Fn(&crate::Stats) -> bool) {
    let runtime = Runtime::system();
    let waiting = async {
        while !what(&running.stats()) {
            runtime.sleep(Duration::from_millis(2)).await;
        }
    };
    let came = runtime.timeout(Duration::from_secs(20), waiting).await;
    assert!(came.is_some(), "never: {:?}", running.stats());
}

#[tokio::test]
async fn a_message_of_no_known_type_is_dead_lettered_and_sent_again_though_commits_fail() {
    let store = MemoryStore::new(Runtime::system());
    let (faults, failing) = failing_once(&store);
    let endpoint = Endpoint::builder("shop").store(failing).on(other).route::<Lost>("shop").build().await.unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    bus.send(Lost { order: 1 }).await.unwrap();
    until(&running, |stats| stats.dead == 1).await;
    assert_eq!(faults.hits(), 1);
    running.stop().await.unwrap();

    // now it has a handler, and an operator sends it again
    let (faults, failing) = failing_once(&store);
    let endpoint = Endpoint::builder("shop").store(failing).on(find).build().await.unwrap();
    let running = endpoint.start().await.unwrap();
    let admin = running.admin().unwrap();
    let dead = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(dead[0].reason, "unknown message type");
    assert_eq!(admin.retry_dead_letters(&[dead[0].id]).await.unwrap(), 1);
    // the unit that sends it again, and the handler's
    until(&running, |stats| stats.handled == 2).await;
    assert_eq!((faults.hits(), running.stats().dead), (1, 0));
    assert!(admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty());
    running.stop().await.unwrap();
}

message!(Flaky, "burial.flaky");

async fn flaky(m: Flaky, ctx: &mut Context) -> Result {
    if u64::from(ctx.attempts()) < m.order { Err(HandlerError::new("not yet")) } else { Ok(()) }
}

#[tokio::test]
async fn no_handler_dead_letters_a_message_before_it_was_told_of_earlier_failures() {
    for (fails, outcome) in [(1, (1, 0, 1)), (u64::MAX, (0, 1, 2))] {
        let store = Arc::new(MemoryStore::new(Runtime::system()));
        let id = MessageId(Runtime::system().uuid());
        // a process that died had counted as many as there may be
        for _ in 0..3 {
            store.count_attempt("shop", "burial.flaky", id).await.unwrap();
        }
        let policy = Recoverability { immediate: 2, delays: Vec::new(), ..Recoverability::default() };
        let endpoint = Endpoint::builder("shop").store(store).on(flaky).recoverability(policy).build().await.unwrap();
        let bus = endpoint.bus();
        let running = endpoint.start().await.unwrap();
        bus.send_with(Flaky { order: fails }, SendOptions::new().id(id)).await.unwrap();
        until(&running, |stats| stats.handled + stats.dead == 1).await;
        running.stop().await.unwrap();
        let stats = running.stats();
        assert_eq!((stats.handled, stats.dead, stats.failures), outcome, "{stats:?}");
    }
}

#[tokio::test]
async fn without_a_store_the_letter_is_sent_until_the_broker_takes_it() {
    let (broker, transport) = broker();
    let error = queue(&transport, "shop.error").await;
    let endpoint = Endpoint::builder("shop").transport(transport).at_least_once().on(find).build().await.unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    // the message; then its letter, which is refused
    broker.script_sends([None, Some(SendFault::Refuse)]);
    let options = SendOptions::new().to("shop");
    bus.send_with(Unknown { order: 1 }, options).await.unwrap();
    assert_eq!(take(&error).await.message.headers.message_type, "burial.unknown");
    until(&running, |stats| stats.dead == 1).await;
    running.stop().await.unwrap();
    assert_eq!(broker.depth("shop"), Some(0));
}
