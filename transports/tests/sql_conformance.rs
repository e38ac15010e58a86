//! The sql transport passes the conformance suite over the queues of every store there is.
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{MessageId, NodeId, Queues, Runtime, Transport};
use sagabus_outbox::{
    memory::MemoryStore,
    sqlite::{SqliteOptions, SqliteStore},
};
use sagabus_testkit::transport::{Promises, TransportHarness};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};
use support::{Meddled, Meddling};

/// Queues that nobody else sees, and handles on them as of several processes.
#[async_trait]
trait Place: Send + Sync + 'static {
    /// Another process's handle.
    async fn queues(&self) -> Arc<dyn Queues>;

    async fn drop_all(&self) {}
}

/// The memory store.
struct InMemory(MemoryStore);

#[async_trait]
impl Place for InMemory {
    async fn queues(&self) -> Arc<dyn Queues> {
        Arc::new(self.0.open_again())
    }
}

/// A SQLite file, with handles that share a writer as in one process, or with handles that do not.
struct InSqlite {
    directory: PathBuf,
    isolated: bool,
    open: Mutex<Vec<Arc<SqliteStore>>>,
}

impl InSqlite {
    fn new(isolated: bool) -> Self {
        let name = format!("sagabus-transport-{}", Runtime::system().uuid().simple());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, isolated, open: Mutex::default() }
    }
}

#[async_trait]
impl Place for InSqlite {
    async fn queues(&self) -> Arc<dyn Queues> {
        let mut options = SqliteOptions::new(Runtime::system());
        options.isolated = self.isolated;
        let url = format!("sqlite://{}", self.directory.join("bus.db").display());
        let store = SqliteStore::open(&url, options).await.unwrap();
        self.open.lock().unwrap().push(store.clone());
        store
    }

    async fn drop_all(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        for store in open {
            sagabus_core::Store::close(&*store).await;
        }
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

struct Over<P> {
    place: P,
    first: Mutex<Option<Arc<dyn Queues>>>,
    meddling: Arc<Meddling>,
}

impl<P: Place> Over<P> {
    fn new(place: P) -> Self {
        Self { place, first: Mutex::default(), meddling: Arc::default() }
    }

    fn first(&self) -> Arc<dyn Queues> {
        self.first.lock().unwrap().clone().unwrap()
    }

    fn transport(&self, queues: Arc<dyn Queues>) -> Arc<dyn Transport> {
        let queues = Meddled { inner: queues, meddling: self.meddling.clone() };
        Arc::new(SqlTransport::new(Arc::new(queues), SqlOptions::default()))
    }
}

#[async_trait]
impl<P: Place> TransportHarness for Over<P> {
    async fn open(&self) -> Arc<dyn Transport> {
        let queues = self.place.queues().await;
        queues.migrate().await.unwrap();
        *self.first.lock().unwrap() = Some(queues.clone());
        self.transport(queues)
    }

    async fn again(&self) -> Arc<dyn Transport> {
        self.transport(self.place.queues().await)
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.first().depth(queue).await.unwrap()
    }

    async fn inject(&self, queue: &str, id: MessageId, headers: Bytes, body: Bytes) -> bool {
        self.meddling.inject(&self.first(), queue, id, headers, body).await;
        true
    }

    async fn cut(&self, node: NodeId) -> bool {
        self.meddling.cut(node);
        true
    }

    async fn mend(&self, node: NodeId) {
        self.meddling.mend(node);
    }

    async fn hide(&self, id: MessageId) -> bool {
        self.meddling.hide(id);
        true
    }

    async fn reveal(&self, id: MessageId) {
        self.meddling.reveal(id);
    }

    fn promises(&self) -> Promises {
        Promises { deduplicates: true, removes_reply_queues: false }
    }

    async fn close(&self) {
        self.first.lock().unwrap().take();
        self.place.drop_all().await;
    }
}

sagabus_testkit::transport_conformance!(over_memory, Over::new(InMemory(MemoryStore::new(Runtime::system()))));
sagabus_testkit::transport_conformance!(over_sqlite, Over::new(InSqlite::new(false)));
sagabus_testkit::transport_conformance!(over_sqlite_apart, Over::new(InSqlite::new(true)));
