use crate::admin::Cursor;
use crate::{Bus, Endpoint, EndpointBuilder, Error, Message, RunningEndpoint, store::memory::MemoryStore};
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, DeadLetter, Outgoing, Queues, ReceiveOptions, Receiver, Result, Runtime, SendOutcome,
    Topology, Transport,
};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Whole endpoints in memory, in virtual time: the same scheduler, inbox, outbox, timers and dead letters as in
/// production, on a memory store per endpoint and a memory transport between them.
///
/// Use it in a test with paused time. Sleeping then costs nothing, and the same seed gives the same run:
///
/// ```
/// use sagabus::{prelude::*, testing::TestBus};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Ping; impl sagabus::Message for Ping { const NAME: &'static str = "ping"; }
/// # #[derive(Serialize, Deserialize)] struct Pong; impl sagabus::Message for Pong { const NAME: &'static str = "pong"; }
/// async fn answer(_: Ping, ctx: &mut Context) -> Result {
///     ctx.publish(Pong);
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() { tokio::time::pause(); pings_are_answered().await }
/// // #[tokio::test(start_paused = true)]
/// async fn pings_are_answered() {
///     let mut bus = TestBus::new();
///     bus.start(bus.endpoint("ponger").on(answer)).await;
///     bus.bus("ponger").send(Ping).await.unwrap();
///     bus.settle().await;
///     assert_eq!(bus.sent::<Pong>().len(), 1);
/// }
/// ```
pub struct TestBus {
    runtime: Runtime,
    queues: Arc<MemoryStore>,
    log: Log,
    endpoints: BTreeMap<String, RunningEndpoint>,
}

impl std::fmt::Debug for TestBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBus").field("endpoints", &self.endpoints.keys()).finish_non_exhaustive()
    }
}

type Log = Arc<Mutex<Vec<Outgoing>>>;

/// How long `settle` waits, in virtual time, before it says what is stuck.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Leases in tests are long: virtual time would otherwise be filled with heartbeats.
const LEASE_TTL: Duration = Duration::from_secs(600);

impl Default for TestBus {
    fn default() -> Self {
        Self::new()
    }
}

impl TestBus {
    /// With seed 0.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// Ids and jitter follow the seed.
    pub fn seeded(seed: u64) -> Self {
        let runtime = Runtime::simulated(seed);
        let queues = Arc::new(MemoryStore::new(runtime.clone()));
        Self { runtime, queues, log: Arc::default(), endpoints: BTreeMap::new() }
    }

    /// The builder of an endpoint on this bus, with a store of its own. Give it to [`start`](TestBus::start).
    pub fn endpoint(&self, name: &str) -> EndpointBuilder {
        let queues: Arc<dyn Queues> = self.queues.clone();
        let transport = Tap { inner: SqlTransport::new(queues, SqlOptions::default()), log: self.log.clone() };
        Endpoint::builder(name)
            .transport(Arc::new(transport))
            .store(Arc::new(MemoryStore::new(self.runtime.clone())))
            .runtime(self.runtime.clone())
            .lease(LEASE_TTL)
    }

    /// Builds and starts an endpoint.
    ///
    /// # Panics
    /// If it cannot be built, with the reason.
    #[track_caller]
    pub fn start(&mut self, endpoint: EndpointBuilder) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let endpoint = endpoint.build().await;
            let endpoint = endpoint.unwrap_or_else(|error| panic!("{caller}: the endpoint cannot be built: {error}"));
            let name = endpoint.info.name.to_string();
            let running = endpoint.start().await;
            let running = running.unwrap_or_else(|error| panic!("{caller}: {name} does not start: {error}"));
            self.endpoints.insert(name, running);
        }
    }

    /// A running endpoint.
    ///
    /// # Panics
    /// If no endpoint of this name was started.
    #[track_caller]
    pub fn running(&self, name: &str) -> &RunningEndpoint {
        match self.endpoints.get(name) {
            Some(running) => running,
            None => panic!("no endpoint {name:?} was started on this bus"),
        }
    }

    /// Sends and publishes as an endpoint, from outside its handlers.
    #[track_caller]
    pub fn bus(&self, name: &str) -> Bus {
        self.running(name).bus()
    }

    /// Waits until nothing is queued or in flight. Timers, delayed retries and parked messages that are not due do not
    /// count; see [`advance`](TestBus::advance).
    ///
    /// # Panics
    /// After a minute of virtual time, with what is stuck.
    #[track_caller]
    pub fn settle(&self) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let start = self.runtime.elapsed();
            let mut quiet = 0;
            // twice in a row: a message between two tables is in neither count for a moment
            while quiet < 3 {
                self.runtime.sleep(Duration::from_millis(5)).await;
                let busy = self.busy().await;
                quiet = if busy.is_empty() { quiet + 1 } else { 0 };
                let waited = self.runtime.elapsed().saturating_sub(start);
                assert!(waited < SETTLE_TIMEOUT, "{caller}: still busy after {waited:?}: {}", busy.join(", "));
            }
        }
    }

    async fn busy(&self) -> Vec<String> {
        let mut busy = Vec::new();
        for (name, running) in &self.endpoints {
            let in_flight = running.health().await.in_flight;
            if in_flight > 0 {
                busy.push(format!("{in_flight} in flight at {name}"));
            }
            match self.queues.depth(name).await {
                Ok(0) | Err(_) => {}
                Ok(depth) => busy.push(format!("{depth} in the queue of {name}")),
            }
            let Some(admin) = running.admin() else { continue };
            match admin.counts().await.map(|counts| counts.get("outbox").copied().unwrap_or(0)) {
                Ok(0) | Err(_) => {}
                Ok(outbox) => busy.push(format!("{outbox} in the outbox of {name}")),
            }
        }
        busy
    }

    /// Lets virtual time pass, then [settles](TestBus::settle): what became due meanwhile is handled.
    #[track_caller]
    pub fn advance(&self, time: Duration) -> impl Future<Output = ()> + '_ {
        let settled = self.settle();
        async move {
            self.runtime.sleep(time).await;
            settled.await;
        }
    }

    /// Every message of a type that went over the transport so far, in order.
    ///
    /// # Panics
    /// If one cannot be decoded.
    #[track_caller]
    pub fn sent<M: Message>(&self) -> Vec<M> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let of_type = log.iter().filter(|out| out.message.headers.message_type == M::NAME);
        of_type
            .map(|out| match serde_json::from_slice(&out.message.body) {
                Ok(message) => message,
                Err(error) => panic!("a sent {} cannot be decoded: {error}", M::NAME),
            })
            .collect()
    }

    /// The dead letters of an endpoint.
    ///
    /// # Panics
    /// If no endpoint of this name was started.
    pub async fn dead_letters(&self, name: &str) -> Result<Vec<DeadLetter>> {
        match self.running(name).admin() {
            Some(admin) => Ok(admin.dead_letters(&Cursor::start(), 1000).await?.items),
            None => Err(Error::unsupported(format!("endpoint {name} has no store"))),
        }
    }

    /// How much virtual time has passed since the bus was made.
    pub fn elapsed(&self) -> Duration {
        self.runtime.elapsed()
    }

    /// Stops all endpoints cleanly.
    pub async fn stop(&self) -> Result<()> {
        for running in self.endpoints.values() {
            running.stop().await?;
        }
        Ok(())
    }
}

/// A transport that notes what is sent over it.
struct Tap {
    inner: SqlTransport,
    log: Log,
}

#[async_trait]
impl Transport for Tap {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        // never joined, so that every message takes the whole way
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.inner.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.inner.receive(options).await
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        let outcomes = self.inner.send_batch(batch).await;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        for (outgoing, outcome) in batch.iter().zip(&outcomes) {
            if outcome.is_done() {
                log.push(outgoing.clone());
            }
        }
        outcomes
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
