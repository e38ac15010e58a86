//! The sql transport passes the transports' conformance suite over PostgreSQL's queues.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "the shared support is test code")]

mod postgres_support;
#[path = "../../transports/tests/support/mod.rs"]
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use postgres_support::Schema;
use sagabus_core::{MessageId, NodeId, Queues, Store, Transport};
use sagabus_testkit::transport::{Promises, TransportHarness};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::sync::{Arc, Mutex};
use support::{Meddled, Meddling};

#[derive(Default)]
struct OverPostgres {
    schema: Mutex<Option<Schema>>,
    stores: Mutex<Vec<Arc<dyn Store>>>,
    meddling: Arc<Meddling>,
}

impl OverPostgres {
    async fn queues(&self) -> Arc<dyn Queues> {
        let schema = self.schema.lock().expect("lock").clone().expect("opened");
        let store = schema.store().await;
        self.stores.lock().expect("lock").push(store.clone());
        store.queues().expect("queues")
    }

    fn first(&self) -> Arc<dyn Queues> {
        self.stores.lock().expect("lock")[0].queues().expect("queues")
    }

    fn transport(&self, queues: Arc<dyn Queues>) -> Arc<dyn Transport> {
        let queues = Meddled { inner: queues, meddling: self.meddling.clone() };
        Arc::new(SqlTransport::new(Arc::new(queues), SqlOptions::default()))
    }
}

#[async_trait]
impl TransportHarness for OverPostgres {
    async fn open(&self) -> Arc<dyn Transport> {
        *self.schema.lock().expect("lock") = Some(Schema::new().await);
        self.transport(self.queues().await)
    }

    async fn again(&self) -> Arc<dyn Transport> {
        self.transport(self.queues().await)
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.first().depth(queue).await.expect("depth")
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
        Promises { deduplicates: true, removes_reply_queues: true }
    }

    async fn close(&self) {
        let stores = std::mem::take(&mut *self.stores.lock().expect("lock"));
        for store in stores {
            store.close().await;
        }
        let schema = self.schema.lock().expect("lock").take();
        schema.expect("opened").drop().await;
    }
}

sagabus_testkit::transport_conformance!(over_postgres, OverPostgres::default());
