//! What is decided about a message on a state that then turns out not to be.

use crate::{
    prelude::*,
    store::memory::{Fault, FaultRates, MemoryStore, Operation, StoreFaults},
};
use sagabus_core::InvocationContext;
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
    let faults = StoreFaults::new().rate(Operation::Commit, slow).at(Operation::Commit, 2, Fault::Before).at(
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

message!(Begin, "s.begin");
message!(Ring, "s.ring");

static RUNS: AtomicU32 = AtomicU32::new(0);
static RINGS: AtomicU32 = AtomicU32::new(0);

/// Its first run does not end before the test lets it, and then the store fails under it.
#[derive(Default, Serialize, Deserialize)]
struct Alarm;

impl Saga for Alarm {
    const NAME: &'static str = "alarm";
    type Key = u8;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Begin>(|_| 1).timeout::<Ring>();
    }
}

impl Handle<Begin> for Alarm {
    async fn handle(&mut self, _: Begin, ctx: &mut SagaContext) -> Result {
        if RUNS.fetch_add(1, Ordering::SeqCst) == 0 {
            while RUNS.load(Ordering::SeqCst) < 100 {
                ctx.info().runtime.sleep(Duration::from_millis(1)).await;
            }
            return Err(sagabus_core::Error::new(sagabus_core::ErrorKind::Transient, "gone for a moment").into());
        }
        Ok(())
    }
}

impl Handle<Ring> for Alarm {
    async fn handle(&mut self, _: Ring, _: &mut SagaContext) -> Result {
        RINGS.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// This node has read that there is no such saga; another one creates it, with a timeout, which is this node's to handle.
/// It must not be dropped as the timeout of a life that is over.
#[tokio::test]
async fn memory_a_timeout_is_not_judged_by_a_state_that_was_read_before_it_came() {
    use sagabus_core::*;
    let runtime = Runtime::system();
    let store = MemoryStore::new(runtime.clone());
    let endpoint = Endpoint::builder("shop").store(Arc::new(store.open_again())).saga::<Alarm>().build().await.unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    bus.send(Begin).await.unwrap();
    while RUNS.load(Ordering::SeqCst) == 0 {
        runtime.sleep(Duration::from_millis(1)).await;
    }
    let (instance, kind) = (InstanceId(runtime.uuid()), "shop/alarm");
    let mut headers = Headers::new(MessageId(runtime.uuid()), "s.ring", Intent::Timeout, Timestamp(0));
    headers.saga = Some(SagaAddress { kind: kind.into(), key: "1".into(), instance });
    let mut unit = UnitOfWork::new("alarm".into(), MessageId(runtime.uuid()), Gate::Inbox);
    let (state, schema, origin) = ("null".into(), 1, None);
    let change = SagaChange::Create { instance, state, schema, origin };
    unit.saga = Some(SagaWrite { kind: kind.into(), key: "1".into(), change, aliases: Vec::new() });
    let message = Box::new(Envelope::new(headers, "null"));
    unit.timers.push(TimerChange::Set { id: TimerId(runtime.uuid()), due: Due::At(Timestamp(1)), message });
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let reply = store.commit(CommitBatch { owner, joined: true, units: vec![unit], sent: Vec::new() }).await;
    assert!(reply.outcomes[0].is_applied(), "{reply:?}");
    // it waits behind the handler that runs
    while running.health().await.in_flight < 2 {
        runtime.sleep(Duration::from_millis(1)).await;
    }
    RUNS.store(100, Ordering::SeqCst);
    while running.stats().handled + running.stats().dropped.values().sum::<u64>() < 2 {
        runtime.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(RINGS.load(Ordering::SeqCst), 1, "{:?}", running.stats());
    running.stop().await.unwrap();
}
