//! What every case stands on.

pub(crate) use crate::run::{Run, messages};
use crate::{
    environment::{Setup, TestEnvironment},
    own_database::{self, Connection},
};
use sagabus::{
    Endpoint, EndpointBuilder, MessageId, Recoverability, RunningEndpoint, Runtime,
    message::{Envelope, Headers, Intent},
    ports::{Destination, Outgoing, Store, StoreAdmin, Transport},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// Far more than anything here takes; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_millis(3);

messages! {
    Entry "ledger.entry"
}

/// A durable list per key: what is in it took effect, as often as it is in it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<u64>,
}

impl Saga for Ledger {
    const NAME: &'static str = "ledger";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Entry>(|m| m.key.clone());
    }
}

impl Handle<Entry> for Ledger {
    async fn handle(&mut self, m: Entry, _: &mut SagaContext) -> Result {
        self.entries.push(m.n);
        Ok(())
    }
}

pub(crate) struct Fixture {
    pub(crate) run: Run,
    pub(crate) environment: TestEnvironment,
    /// The test's own handle, to look at what there is.
    watching: OnceCell<Arc<dyn Store>>,
    started: Mutex<Vec<Arc<RunningEndpoint>>>,
}

impl Fixture {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            run: Run::next(),
            environment: TestEnvironment::new(setup),
            watching: OnceCell::new(),
            started: Mutex::default(),
        }
    }

    /// Runs one case.
    pub(crate) fn run(setup: Setup, case: impl AsyncFnOnce(&Self)) {
        setup.runtime().block_on(async {
            let fixture = Self::new(setup);
            case(&fixture).await;
            fixture.end().await;
        });
    }

    /// A new handle on the one store, as another process has it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        self.environment.store().await
    }

    /// The same; a handler may hold its transaction for so long only.
    pub(crate) async fn impatient_store(&self, limit: Duration) -> Arc<dyn Store> {
        self.environment.impatient_store(limit).await
    }

    /// A new handle on what carries the messages.
    pub(crate) async fn transport(&self) -> Arc<dyn Transport> {
        self.environment.transport().await
    }

    /// A connection of one's own to the store's database.
    pub(crate) async fn connect(&self) -> Connection {
        own_database::connect(&self.environment.database_url()).await
    }

    /// An endpoint on this set-up, which retries once at once and once a little later.
    pub(crate) async fn endpoint(&self, name: &str) -> EndpointBuilder {
        self.endpoint_on(name, self.store().await).await
    }

    pub(crate) async fn endpoint_on(&self, name: &str, store: Arc<dyn Store>) -> EndpointBuilder {
        let builder = Endpoint::builder(name).recoverability(policy(1, &[30])).store(store);
        if self.environment.setup.is_joined() { builder } else { builder.transport(self.transport().await) }
    }

    /// An endpoint as a program builds it.
    pub(crate) fn by_url(&self, name: &str) -> EndpointBuilder {
        let builder = Endpoint::builder(name).store(self.environment.store_url());
        match self.environment.setup.is_joined() {
            true => builder,
            false => builder.transport(self.environment.transport_url()),
        }
    }

    pub(crate) async fn start(&self, builder: EndpointBuilder) -> Arc<RunningEndpoint> {
        let running = Arc::new(builder.build().await.unwrap().start().await.unwrap());
        self.started.lock().unwrap().push(running.clone());
        running
    }

    pub(crate) async fn admin(&self) -> Arc<dyn StoreAdmin> {
        self.watching.get_or_init(|| self.store()).await.admin()
    }

    /// What has taken effect in a [`Ledger`].
    pub(crate) async fn ledger(&self, endpoint: &str, key: &str) -> Vec<u64> {
        let row = self.admin().await.saga(&format!("{endpoint}/ledger"), key).await.unwrap();
        row.map_or_else(Vec::new, |row| serde_json::from_slice::<Ledger>(&row.state).unwrap().entries)
    }

    /// Puts a message into a queue as it is, past everything that a sender would refuse.
    pub(crate) async fn inject(
        &self,
        queue: &str,
        kind: &str,
        intent: Intent,
        body: &[u8],
        change: impl FnOnce(&mut Headers),
    ) {
        let runtime = Runtime::system();
        let mut headers = Headers::new(MessageId(runtime.uuid()), kind, intent, runtime.now());
        change(&mut headers);
        let message = Envelope::new(headers, body.to_vec());
        let to = Destination::Queue(queue.into());
        let outcomes = self.transport().await.send_batch(&[Outgoing { to, message }]).await;
        assert!(outcomes[0].is_done(), "{outcomes:?}");
    }

    pub(crate) async fn eventually<F: Future<Output = bool>>(&self, what: &str, mut check: impl FnMut() -> F) {
        let started = Instant::now();
        while !check().await {
            assert!(started.elapsed() < DEADLINE, "never: {what}; {:?}", self.situation().await);
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many messages wait in a queue.
    pub(crate) async fn waiting(&self, queue: &str) -> u64 {
        self.environment.waiting(queue).await
    }

    /// Waits until an endpoint has nothing left to do: no message in its queue, none in its hands, none to be sent or
    /// tried again.
    pub(crate) async fn settled(&self, endpoint: &RunningEndpoint, queue: &str) {
        self.eventually("everything is settled", || async {
            let counts = self.admin().await.counts().await.unwrap();
            let idle = endpoint.health().await.in_flight == 0;
            idle && ["outbox", "retry"].iter().all(|table| counts[*table] == 0) && self.waiting(queue).await == 0
        })
        .await;
    }

    pub(crate) async fn noted(&self, what: &str, times: usize) {
        self.eventually(what, || async { self.run.count(what) >= times }).await;
        assert_eq!(self.run.count(what), times, "{what}: {:?}", self.run.notes());
    }

    async fn situation(&self) -> (Vec<String>, Vec<sagabus::Stats>, impl std::fmt::Debug) {
        let stats = self.started.lock().unwrap().iter().map(|running| running.stats()).collect();
        (self.run.notes(), stats, self.admin().await.counts().await)
    }

    /// Every case ends with clean stops that leave nothing half done.
    pub(crate) async fn end(&self) {
        let started = std::mem::take(&mut *self.started.lock().unwrap());
        for running in &started {
            running.stop().await.unwrap();
        }
        if started.iter().any(|running| running.admin().is_some()) {
            assert_eq!(self.admin().await.counts().await.unwrap()["outbox"], 0);
        }
        if let Some(store) = self.watching.get() {
            store.close().await;
        }
        self.environment.remove().await;
    }
}

/// Short, and the same each time.
pub(crate) fn policy(immediate: u32, delays: &[u64]) -> Recoverability {
    let delays = delays.iter().map(|ms| Duration::from_millis(*ms)).collect();
    Recoverability { immediate, pause: Duration::from_millis(2), delays, ..Recoverability::default() }
}
