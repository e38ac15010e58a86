//! Endpoints without a store, on the memory broker.

use crate::{
    admin::Cursor,
    ports::{MessageId, ReceiveOptions, Settle, Settlement, TimerId},
    prelude::*,
    store::memory::MemoryStore,
    transport::{
        memory::{MemoryBroker, SendFault},
        sql::{SqlOptions, SqlTransport},
    },
};
use sagabus_core::{
    Capabilities, DatabaseId, Delivery, NodeId, Outgoing, Receiver, Runtime, SendOutcome, Store as _, Topology,
    Transport,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

message!(Job, "t.job");
message!(Passed, "t.passed");

/// A queue that the test reads.
pub(super) async fn queue(transport: &Arc<dyn Transport>, name: &str) -> Arc<dyn Receiver> {
    let topology = Topology { queue: Some(name.into()), ..Topology::default() };
    transport.provision(&topology).await.unwrap();
    let (runtime, node) = (Runtime::system(), NodeId(Runtime::system().uuid()));
    let lease = Duration::from_secs(5);
    transport
        .receive(ReceiveOptions {
            queue: name.into(),
            node,
            window: 100,
            ordered: false,
            lease,
            offsets: None,
            runtime,
        })
        .await
        .unwrap()
}

pub(super) async fn take(receiver: &Arc<dyn Receiver>) -> Delivery {
    let next = Runtime::system().timeout(Duration::from_secs(10), receiver.next(1)).await;
    let delivery = next.expect("nothing came").unwrap().remove(0);
    receiver.settle(vec![Settlement { token: delivery.token, settle: Settle::Done }]).await.unwrap();
    delivery
}

pub(super) fn broker() -> (MemoryBroker, Arc<dyn Transport>) {
    let broker = MemoryBroker::new(Runtime::system());
    let transport: Arc<dyn Transport> = Arc::new(broker.transport());
    (broker, transport)
}

async fn pass(job: Job, ctx: &mut Context) -> Result {
    ctx.send(Passed { order: job.order });
    ctx.send_with(Passed { order: job.order + 1 }, SendOptions::new().after(Duration::from_millis(200)));
    Ok(())
}

#[tokio::test]
async fn what_failed_to_leave_runs_again_under_the_same_ids() {
    let (broker, transport) = broker();
    let sink = queue(&transport, "sink").await;
    let endpoint =
        Endpoint::builder("pass").transport(transport).at_least_once().on(pass).route::<Passed>("sink").build();
    let endpoint = endpoint.await.unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    // the job itself; then its output, confirmed too late to be known
    broker.script_sends([None, Some(SendFault::LoseConfirm), Some(SendFault::Refuse)]);
    let begun = Runtime::system();
    bus.send(Job { order: 1 }).await.unwrap();
    let mut ids: Vec<(String, MessageId)> = Vec::new();
    for _ in 0..3 {
        let message = take(&sink).await.message;
        let body = String::from_utf8(message.body.to_vec()).unwrap();
        assert!(!body.contains('2') || begun.elapsed() >= Duration::from_millis(200), "early");
        ids.push((body, message.headers.message_id));
    }
    ids.sort();
    assert_eq!(ids[0], ids[1], "the first one came twice, as the same message");
    assert_ne!(ids[1], ids[2]);
    running.stop().await.unwrap();
    let stats = running.stats();
    assert_eq!((stats.handled, stats.infrastructure > 0, broker.depth("pass")), (1, true, Some(0)), "{stats:?}");
}

static GOOD: AtomicU32 = AtomicU32::new(0);
static TRIES: Mutex<Vec<u32>> = Mutex::new(Vec::new());

async fn good(_: Job, _: &mut Context) -> Result {
    GOOD.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

async fn bad(_: Job, ctx: &mut Context) -> Result {
    TRIES.lock().unwrap().push(ctx.attempts());
    Err(HandlerError::new("no luck"))
}

#[tokio::test]
async fn one_handler_fails_waits_and_ends_as_a_dead_letter() {
    let (_, transport) = broker();
    let mut policy = Recoverability::none();
    policy.immediate = 1;
    policy.delays = vec![Duration::from_millis(100)];
    let endpoint = Endpoint::builder("work")
        .transport(transport.clone())
        .at_least_once()
        .recoverability(policy)
        .on_named("good", good)
        .on_named("bad", bad)
        .build()
        .await
        .unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    let id = bus.publish(Job { order: 1 }).await.unwrap();
    let error = queue(&transport, "work.error").await;
    let letter = take(&error).await.message;
    let headers = &letter.headers;
    let user = |name: &str| headers.user[name].value.clone();
    assert_eq!(
        (headers.message_id, user("error-reason"), user("error-attempts")),
        (id, "handler failed".into(), "4".into())
    );
    assert_eq!((user("error-detail"), user("sagabus-handler")), ("no luck".into(), "bad".into()));
    running.stop().await.unwrap();
    assert_eq!(GOOD.load(Ordering::SeqCst), 1, "the other handler is not run again");
    assert_eq!(*TRIES.lock().unwrap(), [0, 1, 2, 3]);
}

/// A broker whose confirms come late: whoever receives is quicker.
struct Late(Arc<dyn Transport>);

#[async_trait::async_trait]
impl Transport for Late {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        self.0.database()
    }

    async fn provision(&self, topology: &Topology) -> crate::ports::Result<()> {
        self.0.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> crate::ports::Result<Arc<dyn Receiver>> {
        self.0.receive(options).await
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        let outcomes = self.0.send_batch(batch).await;
        Runtime::system().sleep(Duration::from_millis(100)).await;
        outcomes
    }

    async fn send_delayed(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        self.0.send_delayed(batch).await
    }

    async fn health(&self) -> crate::ports::Result<()> {
        self.0.health().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

static SECOND_TRIES: AtomicU32 = AtomicU32::new(0);

async fn second_try(_: Job, _: &mut Context) -> Result {
    match SECOND_TRIES.fetch_add(1, Ordering::SeqCst) {
        0 => Err(HandlerError::new("no luck")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_retry_that_comes_before_its_original_is_through_is_not_taken_for_it() {
    let (_, transport) = broker();
    let mut policy = Recoverability::none();
    policy.delays = vec![Duration::ZERO];
    let endpoint = Endpoint::builder("again")
        .transport(Arc::new(Late(transport)) as Arc<dyn Transport>)
        .at_least_once()
        .recoverability(policy)
        .on(second_try)
        .build()
        .await
        .unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    bus.publish(Job { order: 1 }).await.unwrap();
    let handled = async {
        while running.stats().handled == 0 {
            Runtime::system().sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(Runtime::system().timeout(Duration::from_secs(10), handled).await.is_some(), "{:?}", running.stats());
    running.stop().await.unwrap();
    assert_eq!(SECOND_TRIES.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_needs_a_store_is_refused() {
    let (_, transport) = broker();
    let text = |built: crate::ports::Result<Endpoint>| built.err().map(|error| error.to_string()).unwrap_or_default();
    let endpoint = || Endpoint::builder("x").transport(transport.clone());
    let store = Arc::new(MemoryStore::new(Runtime::system()));
    for (builder, said) in [
        (endpoint().on(good), "at_least_once"),
        (endpoint().at_least_once().saga::<super::Order>(), "saga order needs a store"),
        (endpoint().at_least_once().on(good).ordered(), "ordered"),
        (endpoint().at_least_once().on(good).store(store.clone()), "has a store"),
        (
            Endpoint::builder("x")
                .transport(Arc::new(SqlTransport::new(store.queues().unwrap(), SqlOptions::default())))
                .at_least_once()
                .on(good),
            "cannot delay",
        ),
    ] {
        let error = text(builder.build().await);
        assert!(error.contains(said), "{error:?} does not say {said:?}");
    }
}

#[tokio::test]
async fn a_delay_is_refused_where_it_cannot_be_kept_and_never_cancelled() {
    let (_, transport) = broker();
    let sink = queue(&transport, "sink").await;
    let sender = Endpoint::builder("x").transport(transport.clone()).route::<Job>("sink").build().await.unwrap();
    let bus = sender.bus();
    let second = || SendOptions::new().after(Duration::from_secs(1));
    assert!(bus.publish_with(Passed { order: 1 }, second()).await.unwrap_err().is_invalid());
    assert!(bus.send_with(Job { order: 1 }, second().key("k")).await.unwrap_err().is_invalid());
    let begun = Runtime::system();
    bus.send_with(Job { order: 1 }, SendOptions::new().after(Duration::from_millis(100))).await.unwrap();
    take(&sink).await;
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let bare: Arc<dyn Transport> =
        Arc::new(MemoryBroker::with_capabilities(Runtime::system(), Capabilities::all()).transport());
    let sender = Endpoint::builder("x").transport(bare).route::<Job>("sink").build().await.unwrap();
    assert!(sender.bus().send_with(Job { order: 1 }, second()).await.unwrap_err().is_unsupported());

    let endpoint = Endpoint::builder("x").transport(transport).at_least_once().on(good).build().await.unwrap();
    let timer = TimerId(Runtime::system().uuid());
    let error = endpoint.admin().unwrap().cancel_timer(timer).await.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("neither list nor cancel"), "{error}");
}

/// A handler with a store uses its saga's timeouts: the transport's delay would not be part of its commit.
#[tokio::test]
async fn with_a_store_a_handler_cannot_delay_a_send() {
    let endpoint = Endpoint::builder("pass")
        .store(Arc::new(MemoryStore::new(Runtime::system())))
        .on(pass)
        .route::<Passed>("pass2")
        .build()
        .await
        .unwrap();
    let admin = endpoint.admin().unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    bus.send(Job { order: 1 }).await.unwrap();
    let letter = loop {
        match admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.pop() {
            Some(letter) => break letter,
            None => Runtime::system().sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(letter.detail.join(" ").contains("let a saga's timeout send it"), "{letter:?}");
    running.stop().await.unwrap();
}
