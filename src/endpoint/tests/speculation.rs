//! What is decided about a message on a state that then turns out not to be.

use crate::{
    prelude::*,
    store::memory::{Fault, FaultRates, MemoryFaults, MemoryStore, Operation},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

macro_rules! message {
    ($type:ident, $name:literal) => {
        #[derive(Serialize, Deserialize)]
        struct $type;
        impl crate::Message for $type {
            const NAME: &'static str = $name;
        }
    };
}

message!(Start, "s.start");
message!(Change, "s.change");
message!(Next, "s.next");

static CHANGES: AtomicU32 = AtomicU32::new(0);
static NEXT: AtomicU32 = AtomicU32::new(0);

#[derive(Default, Serialize, Deserialize)]
struct Fickle {
    broken: bool,
}

impl Saga for Fickle {
    const NAME: &'static str = "fickle";
    type Key = u8;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Start>(|_| 1);
        r.continued_by::<Change>(|_| 1);
        r.continued_by::<Next>(|_| 1).on_not_found(NotFound::Discard);
    }
}

impl Handle<Start> for Fickle {
    async fn handle(&mut self, _: Start, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

/// The first run stands for one that was built on a state which another process has changed meanwhile.
impl Handle<Change> for Fickle {
    async fn handle(&mut self, _: Change, ctx: &mut SagaContext) -> Result {
        match CHANGES.fetch_add(1, Ordering::SeqCst) {
            0 => ctx.complete(),
            2 => self.broken = true,
            _ => {}
        }
        Ok(())
    }
}

impl Handle<Next> for Fickle {
    async fn handle(&mut self, _: Next, _: &mut SagaContext) -> Result {
        if self.broken {
            return Err(HandlerError::permanent("broken"));
        }
        NEXT.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Commits fail slowly, so that `Next` runs while `Change` is being committed.
#[tokio::test]
async fn memory_what_was_decided_on_an_uncommitted_state_is_decided_again() {
    let slow = FaultRates { slow: 1000, latency: Duration::from_millis(300), ..FaultRates::default() };
    // commits: Start, Change (fails), Change, Next; Change (fails), Change, Next
    let faults = MemoryFaults::new().rate(Operation::Commit, slow).at(Operation::Commit, 2, Fault::Before).at(
        Operation::Commit,
        5,
        Fault::Before,
    );
    let store = MemoryStore::new(sagabus_core::Runtime::system());
    let endpoint =
        Endpoint::builder("shop").store(Arc::new(store.with_faults(faults))).saga::<Fickle>().build().await.unwrap();
    let runtime = sagabus_core::Runtime::system();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    bus.send(Start).await.unwrap();
    while running.stats().handled < 1 {
        runtime.sleep(Duration::from_millis(5)).await;
    }
    for round in 1..=2 {
        bus.send(Change).await.unwrap();
        while CHANGES.load(Ordering::SeqCst) < round * 2 - 1 {
            runtime.sleep(Duration::from_millis(1)).await;
        }
        bus.send(Next).await.unwrap();
        for _ in 0..400 {
            if running.stats().handled + running.stats().dead >= u64::from(1 + round * 2) {
                break;
            }
            runtime.sleep(Duration::from_millis(10)).await;
        }
    }
    let stats = running.stats();
    assert_eq!((NEXT.load(Ordering::SeqCst), stats.dead, stats.dropped.len()), (2, 0, 0), "{stats:?}");
    assert_eq!(CHANGES.load(Ordering::SeqCst), 4, "both commits were to fail once: {stats:?}");
    running.stop().await.unwrap();
}
