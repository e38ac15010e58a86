//! The whole way of a message, on the memory store's queues. More, on every backend, is in `tests/`.

macro_rules! message {
    ($type:ident, $name:literal) => {
        #[derive(Serialize, Deserialize)]
        struct $type {
            order: u64,
        }
        impl crate::Message for $type {
            const NAME: &'static str = $name;
        }
    };
}

mod at_least_once;
mod dead_letters;
mod first_attempt;
mod speculation;
mod without_id;

use crate::{prelude::*, store::memory::MemoryStore};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

message!(Placed, "t.placed");
message!(Capture, "t.capture");
message!(Captured, "t.captured");
message!(Due, "t.due");
message!(Done, "t.done");

#[derive(Default, Serialize, Deserialize)]
struct Order {
    order: u64,
    captured: u32,
}

impl Saga for Order {
    const NAME: &'static str = "order";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order).continued_by::<Captured>(|m| m.order).timeout::<Due>();
    }
}

impl Handle<Placed> for Order {
    async fn handle(&mut self, m: Placed, ctx: &mut SagaContext) -> Result {
        self.order = m.order;
        ctx.send(Capture { order: m.order });
        ctx.timeout(Duration::from_millis(50), Due { order: m.order });
        Ok(())
    }
}

impl Handle<Captured> for Order {
    async fn handle(&mut self, _: Captured, _: &mut SagaContext) -> Result {
        self.captured += 1;
        Ok(())
    }
}

impl Handle<Due> for Order {
    async fn handle(&mut self, _: Due, ctx: &mut SagaContext) -> Result {
        if self.captured != 1 {
            return Err(HandlerError::new(format!("captured {} times", self.captured)));
        }
        ctx.publish(Done { order: self.order });
        ctx.complete();
        Ok(())
    }
}

async fn capture(m: Capture, ctx: &mut Context) -> Result {
    ctx.publish(Captured { order: m.order });
    Ok(())
}

struct Counter(Arc<AtomicU32>);

impl Consume<Done> for Counter {
    async fn consume(&self, _: Done, _: &mut Context) -> Result {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn memory_a_saga_runs_end_to_end() {
    let done = Arc::new(AtomicU32::new(0));
    let store = Arc::new(MemoryStore::new(sagabus_core::Runtime::system()));
    let endpoint = Endpoint::builder("shop")
        .store(store)
        .saga::<Order>()
        .on(capture)
        .service(Counter(done.clone()), |s| s.on::<Done>())
        .build()
        .await
        .unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    for order in 0..200 {
        bus.send(Placed { order }).await.unwrap();
    }
    for _ in 0..500 {
        if done.load(Ordering::SeqCst) == 200 {
            break;
        }
        running.bus.runtime().sleep(Duration::from_millis(10)).await;
    }
    let stats = running.stats();
    assert_eq!(done.load(Ordering::SeqCst), 200, "{stats:?} {:?}", running.admin().unwrap().counts().await);
    assert_eq!((stats.dead, stats.failures), (0, 0), "{stats:?}");
    running.stop().await.unwrap();
    let counts = running.admin().unwrap().counts().await.unwrap();
    assert_eq!((counts["queue"], counts["saga"], counts["timer"], counts["outbox"]), (0, 0, 0, 0), "{counts:?}");
}
