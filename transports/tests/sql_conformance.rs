//! The sql transport passes the conformance suite over the queues of every store there is.
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{MessageId, NodeId, Queues, Runtime, Transport};
use sagabus_outbox::memory::MemoryStore;
use sagabus_testkit::transport::{Promises, TransportHarness};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::sync::Arc;
use support::{Meddled, Meddling};

/// Over the memory store's queues.
struct OverMemory {
    store: MemoryStore,
    meddling: Arc<Meddling>,
}

impl OverMemory {
    fn new() -> Self {
        Self { store: MemoryStore::new(Runtime::system()), meddling: Arc::default() }
    }

    fn queues(&self) -> Arc<dyn Queues> {
        Arc::new(self.store.open_again())
    }
}

#[async_trait]
impl TransportHarness for OverMemory {
    async fn open(&self) -> Arc<dyn Transport> {
        self.queues().migrate().await.unwrap();
        self.again().await
    }

    async fn again(&self) -> Arc<dyn Transport> {
        let queues = Meddled { inner: self.queues(), meddling: self.meddling.clone() };
        Arc::new(SqlTransport::new(Arc::new(queues), SqlOptions::default()))
    }

    async fn depth(&self, queue: &str) -> u64 {
        Queues::depth(&self.store, queue).await.unwrap()
    }

    async fn inject(&self, queue: &str, id: MessageId, headers: Bytes, body: Bytes) -> bool {
        self.meddling.inject(&self.queues(), queue, id, headers, body).await;
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
}

sagabus_testkit::transport_conformance!(over_memory, OverMemory::new());
