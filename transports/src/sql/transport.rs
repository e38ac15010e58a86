//! The transport over the queues of a database.

use super::{options::SqlOptions, receiver::SqlReceiver, shared::ReceiverState};
use crate::lock;
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Error, Outgoing, Queues, ReceiveOptions, Receiver, Result, SendOutcome, Topology,
    Transport, check_name,
};
use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};

/// The queues of a database as a transport.
///
/// Whether it is *joined* with an endpoint's store is for the endpoint to find out, by comparing
/// [`database`](Transport::database) with the store's.
///
/// Reply queues that it provisioned are removed when it is closed; a crash leaves them behind. The database's handle is
/// not closed with it: its store owns it.
pub struct SqlTransport {
    queues: Arc<dyn Queues>,
    options: SqlOptions,
    receivers: Mutex<Vec<Weak<ReceiverState>>>,
    temporary: Mutex<Vec<String>>,
    closed: AtomicBool,
}

impl std::fmt::Debug for SqlTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl SqlTransport {
    /// A transport over the queues. They must have been migrated.
    pub fn new(queues: Arc<dyn Queues>, options: SqlOptions) -> Self {
        Self {
            queues,
            options,
            receivers: Mutex::default(),
            temporary: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        Ok(())
    }
}

#[async_trait]
impl Transport for SqlTransport {
    fn capabilities(&self) -> Capabilities {
        self.options.capabilities
    }

    fn database(&self) -> Option<&DatabaseId> {
        Some(self.queues.database())
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        crate::refuse(topology, &self.options.capabilities)?;
        let Some(queue) = &topology.queue else {
            return Ok(());
        };
        if topology.temporary {
            lock(&self.temporary).push(queue.clone());
        }
        self.queues.declare(queue).await?;
        self.queues.subscribe(queue, &topology.subscriptions).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        check_name("queue", &options.queue)?;
        if options.ordered && !self.options.capabilities.ordered {
            return Err(Error::unsupported("this transport keeps no order"));
        }
        let receiver = SqlReceiver::start(Arc::clone(&self.queues), options, self.options.poll).await?;
        let mut receivers = lock(&self.receivers);
        receivers.retain(|known| known.strong_count() > 0);
        receivers.push(Arc::downgrade(receiver.shared()));
        Ok(Arc::new(receiver))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        match self.open() {
            Ok(()) => {
                crate::send_within(batch, self.options.capabilities.max_message, async |batch| {
                    self.queues.enqueue(batch).await
                })
                .await
            }
            Err(error) => vec![SendOutcome::Retry(error); batch.len()],
        }
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let receivers: Vec<Arc<ReceiverState>> = lock(&self.receivers).iter().filter_map(Weak::upgrade).collect();
        for receiver in &receivers {
            if let Some(error) = receiver.trouble() {
                return Err(error);
            }
        }
        match receivers.first() {
            Some(receiver) => self.queues.depth(&receiver.options.queue).await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let temporary = std::mem::take(&mut *lock(&self.temporary));
        for queue in temporary {
            if let Err(error) = self.queues.remove(&queue).await {
                tracing::warn!(%queue, %error, "a reply queue stays behind");
            }
        }
    }
}
