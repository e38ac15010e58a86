//! The set-ups, and what every case stands on.

pub(crate) use crate::run::{Run, messages};
use sagabus::{
    Endpoint, EndpointBuilder, Envelope, Headers, Intent, MessageId, Recoverability, Running, Runtime,
    core::{Destination, Outgoing, Store, StoreAdmin, Transport},
    prelude::*,
    store::{
        memory::MemoryStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    transport::{
        memory::MemoryBroker,
        sql::{SqlOptions, SqlTransport},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Far more than anything here takes; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_millis(3);

messages! {
    Entry "book.entry"
}

/// A durable list per key: what is in it took effect, as often as it is in it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) entries: Vec<u64>,
}

impl Saga for Book {
    const NAME: &'static str = "book";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Entry>(|m| m.key.clone());
    }
}

impl Handle<Entry> for Book {
    async fn handle(&mut self, m: Entry, _: &mut SagaContext) -> Result {
        self.entries.push(m.n);
        Ok(())
    }
}

pub(crate) enum Setup {
    Memory { joined: bool },
    Sqlite { joined: bool },
}

impl Setup {
    pub(crate) fn memory_joined() -> Self {
        Self::Memory { joined: true }
    }
    pub(crate) fn memory_split() -> Self {
        Self::Memory { joined: false }
    }
    pub(crate) fn sqlite_joined() -> Self {
        Self::Sqlite { joined: true }
    }
    pub(crate) fn sqlite_split() -> Self {
        Self::Sqlite { joined: false }
    }
}

pub(crate) struct World {
    pub(crate) run: Run,
    setup: Setup,
    memory: MemoryStore,
    broker: MemoryBroker,
    directory: PathBuf,
    started: Mutex<Vec<Arc<Running>>>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let runtime = Runtime::system();
        let directory = std::env::temp_dir().join(format!("sagabus-acceptance-{}", runtime.uuid()));
        if matches!(setup, Setup::Sqlite { .. }) {
            std::fs::create_dir(&directory).unwrap();
        }
        Self {
            run: Run::next(),
            setup,
            memory: MemoryStore::new(runtime.clone()),
            broker: MemoryBroker::new(runtime),
            directory,
            started: Mutex::default(),
        }
    }

    pub(crate) fn url(&self, file: &str) -> String {
        format!("sqlite://{}", self.directory.join(file).display())
    }

    async fn open(&self, file: &str, options: SqliteOptions) -> Arc<dyn Store> {
        let store = SqliteStore::open(&self.url(file), options).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    /// A new handle on the one store, as another process has it. Not synced to disk: no test here cuts the power.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match self.setup {
            Setup::Memory { .. } => Arc::new(self.memory.open_again()),
            Setup::Sqlite { .. } => self.open("store.db", SqliteOptions::default().volatile()).await,
        }
    }

    /// A new handle on what carries the messages.
    pub(crate) async fn transport(&self) -> Arc<dyn Transport> {
        let queues = match self.setup {
            Setup::Memory { joined: false } => return Arc::new(self.broker.transport()),
            Setup::Memory { joined: true } | Setup::Sqlite { joined: true } => self.store().await,
            Setup::Sqlite { joined: false } => self.open("bus.db", SqliteOptions::default().volatile()).await,
        };
        Arc::new(SqlTransport::new(queues.queues().unwrap(), SqlOptions::default()))
    }

    /// An endpoint on this set-up, which retries once at once and once a little later.
    pub(crate) async fn endpoint(&self, name: &str) -> EndpointBuilder {
        self.endpoint_on(name, self.store().await).await
    }

    pub(crate) async fn endpoint_on(&self, name: &str, store: Arc<dyn Store>) -> EndpointBuilder {
        let builder = Endpoint::builder(name).recoverability(policy(1, &[30])).store(store);
        match self.setup {
            Setup::Memory { joined: true } | Setup::Sqlite { joined: true } => builder,
            Setup::Memory { joined: false } | Setup::Sqlite { joined: false } => {
                builder.transport(self.transport().await)
            }
        }
    }

    pub(crate) async fn start(&self, builder: EndpointBuilder) -> Arc<Running> {
        let running = Arc::new(builder.build().await.unwrap().start().await.unwrap());
        self.started.lock().unwrap().push(running.clone());
        running
    }

    pub(crate) async fn admin(&self) -> Arc<dyn StoreAdmin> {
        self.store().await.admin()
    }

    /// What has taken effect in a [`Book`].
    pub(crate) async fn book(&self, endpoint: &str, key: &str) -> Vec<u64> {
        let row = self.admin().await.saga(&format!("{endpoint}/book"), key).await.unwrap();
        row.map_or_else(Vec::new, |row| serde_json::from_slice::<Book>(&row.state).unwrap().entries)
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
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // there is none for the memory set-ups
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Short, and the same each time.
pub(crate) fn policy(immediate: u32, delays: &[u64]) -> Recoverability {
    let delays = delays.iter().map(|ms| Duration::from_millis(*ms)).collect();
    Recoverability { immediate, pause: Duration::from_millis(2), delays, ..Recoverability::default() }
}
