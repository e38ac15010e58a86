//! Queues that a test can meddle with.

use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{
    DatabaseId, Destination, Envelope, Error, ErrorKind, Headers, Intent, Lease, LeaseRequest, Leases, MessageId,
    NodeId, Outgoing, QueueRow, Queues, Result, SendOutcome, Timestamp,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What is meddled with, shared by all handles of one database.
#[derive(Default)]
pub(crate) struct Meddling {
    hidden: Mutex<HashSet<MessageId>>,
    garbled: Mutex<HashMap<MessageId, Bytes>>,
    cut: Mutex<HashSet<NodeId>>,
}

impl Meddling {
    pub(crate) fn hide(&self, id: MessageId) {
        self.hidden.lock().unwrap().insert(id);
    }

    pub(crate) fn reveal(&self, id: MessageId) {
        self.hidden.lock().unwrap().remove(&id);
    }

    pub(crate) fn cut(&self, node: NodeId) {
        self.cut.lock().unwrap().insert(node);
    }

    pub(crate) fn mend(&self, node: NodeId) {
        self.cut.lock().unwrap().remove(&node);
    }

    /// A row whose headers read as these bytes.
    pub(crate) async fn inject(
        &self,
        queues: &Arc<dyn Queues>,
        queue: &str,
        id: MessageId,
        headers: Bytes,
        body: Bytes,
    ) {
        self.garbled.lock().unwrap().insert(id, headers);
        let to = Destination::Queue(queue.into());
        let message = Envelope::new(Headers::new(id, "kit.garbled", Intent::Command, Timestamp(0)), body);
        assert!(queues.enqueue(&[Outgoing { to, message }]).await[0].is_done());
    }
}

/// A database's queues, meddled with.
pub(crate) struct Meddled {
    pub(crate) inner: Arc<dyn Queues>,
    pub(crate) meddling: Arc<Meddling>,
}

#[async_trait]
impl Queues for Meddled {
    fn database(&self) -> &DatabaseId {
        self.inner.database()
    }

    async fn migrate(&self) -> Result<()> {
        self.inner.migrate().await
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        self.inner.declare(queue).await
    }

    async fn remove(&self, queue: &str) -> Result<()> {
        self.inner.remove(queue).await
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        self.inner.subscribe(queue, topics).await
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        self.inner.enqueue(batch).await
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        let hidden = self.meddling.hidden.lock().unwrap().clone();
        // as many more as may be hidden, so that a short page still means the end
        let mut rows = self.inner.read(queue, shards, after, limit + hidden.len()).await?;
        rows.retain(|row| !hidden.contains(&row.message_id));
        rows.truncate(limit);
        let garbled = self.meddling.garbled.lock().unwrap();
        for row in &mut rows {
            if let Some(headers) = garbled.get(&row.message_id) {
                row.headers = headers.clone();
            }
        }
        Ok(rows)
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        self.inner.delete(queue, ids).await
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        self.inner.wait(queue, at_most).await;
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        self.inner.depth(queue).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(MeddledLeases { inner: self.inner.leases(), meddling: self.meddling.clone() })
    }
}

struct MeddledLeases {
    inner: Arc<dyn Leases>,
    meddling: Arc<Meddling>,
}

#[async_trait]
impl Leases for MeddledLeases {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        if self.meddling.cut.lock().unwrap().contains(&request.node) {
            return Err(Error::new(ErrorKind::Transient, "the network is down"));
        }
        self.inner.heartbeat(request).await
    }

    async fn leave(&self, group: &str, node: NodeId) -> Result<()> {
        self.inner.leave(group, node).await
    }
}
