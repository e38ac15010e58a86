use super::{MemoryBroker, queue::Queue, receiver::MemoryReceiver};
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Error, Outgoing, ReceiveOptions, Receiver, Result, SendOutcome, Topology, Transport,
    check_name,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// One process's handle of a [`MemoryBroker`].
///
/// Reply queues that it provisioned go away when it is closed or dropped.
pub struct MemoryTransport {
    broker: MemoryBroker,
    handle: u64,
    closed: AtomicBool,
}

impl std::fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTransport").finish_non_exhaustive()
    }
}

impl MemoryTransport {
    pub(super) fn new(broker: MemoryBroker, handle: u64) -> Self {
        Self { broker, handle, closed: AtomicBool::new(false) }
    }

    /// The broker behind it.
    pub fn broker(&self) -> &MemoryBroker {
        &self.broker
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        Ok(())
    }

    fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.broker.with(|state| {
            let mine = |queue: &Queue| queue.temporary == Some(self.handle);
            let gone: Vec<String> = state.queues.iter().filter(|(_, q)| mine(q)).map(|(n, _)| n.clone()).collect();
            for name in gone {
                if let Some(queue) = state.queues.remove(&name) {
                    queue.notify.notify_waiters();
                }
                for subscribers in state.topics.values_mut() {
                    subscribers.remove(&name);
                }
            }
        });
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.shut();
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        self.broker.check()?;
        crate::refuse(topology, &self.broker.capabilities())?;
        let Some(name) = &topology.queue else { return Ok(()) };
        self.broker.with(|state| {
            let temporary = topology.temporary.then_some(self.handle);
            state.queues.entry(name.clone()).or_insert_with(|| Queue::new(temporary));
            if topology.storeless {
                state.queues.entry(format!("{name}.error")).or_insert_with(|| Queue::new(None));
            }
            for (topic, subscribers) in &mut state.topics {
                if !topology.subscriptions.contains(topic) {
                    subscribers.remove(name);
                }
            }
            for topic in &topology.subscriptions {
                state.topics.entry(topic.clone()).or_default().insert(name.clone());
            }
        });
        Ok(())
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        self.broker.check()?;
        check_name("queue", &options.queue)?;
        if options.ordered && !self.broker.capabilities().ordered {
            return Err(Error::unsupported("this transport keeps no order"));
        }
        Ok(Arc::new(MemoryReceiver::join(self.broker.clone(), options)?))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if let Err(error) = self.open() {
            return vec![SendOutcome::Retry(error); batch.len()];
        }
        let limit = self.broker.capabilities().max_message;
        crate::send_within(batch, limit, async |batch| self.broker.send(batch)).await
    }

    async fn send_delayed(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        if let Err(error) = self.open() {
            return vec![SendOutcome::Retry(error); batch.len()];
        }
        batch.iter().map(|(outgoing, delay)| self.broker.send_delayed(outgoing, *delay)).collect()
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        self.broker.check()
    }

    async fn close(&self) {
        self.shut();
    }
}
