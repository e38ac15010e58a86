//! One consumer.

use super::MemoryBroker;
use crate::receive;
use async_trait::async_trait;
use sagabus_core::{Delivery, Error, ErrorKind, ReceiveOptions, Receiver, Result, Settlement};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;

/// Dropping it without a [`close`](Receiver::close) is a crash: what it had in flight comes again as suspect.
pub(super) struct MemoryReceiver {
    broker: MemoryBroker,
    queue: String,
    consumer: u64,
    notify: Arc<Notify>,
    closed: AtomicBool,
}

impl MemoryReceiver {
    pub(super) fn join(broker: MemoryBroker, options: ReceiveOptions) -> Result<Self> {
        let consumer = broker.number();
        let notify = broker.with(|state| {
            let Some(queue) = state.queues.get_mut(&options.queue) else {
                let text = format!("queue {} does not exist", options.queue);
                return Err(Error::new(ErrorKind::NotFound, text));
            };
            queue.join(consumer, options.node, options.window, options.ordered);
            Ok(Arc::clone(&queue.notify))
        })?;
        Ok(Self { broker, queue: options.queue, consumer, notify, closed: AtomicBool::new(false) })
    }

    fn leave(&self, suspect: bool) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.broker.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.queue) {
                queue.leave(self.consumer, suspect);
            }
        });
    }
}

impl Drop for MemoryReceiver {
    fn drop(&mut self) {
        self.leave(true);
    }
}

#[async_trait]
impl Receiver for MemoryReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        // there is always a hop between a broker and its consumers: it gives the others their turn
        tokio::task::yield_now().await;
        let runtime = self.broker.runtime();
        receive::next(runtime, &self.notify, || {
            let (deliveries, until) = self.broker.take(&self.queue, self.consumer, max.max(1))?;
            Ok((deliveries, until.map(|until| until.saturating_sub(runtime.elapsed()))))
        })
        .await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        self.broker.check()?;
        self.broker.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.queue) {
                for Settlement { token, settle } in settlements {
                    queue.settle(self.consumer, token, settle);
                }
            }
        });
        Ok(())
    }

    async fn stop(&self) {
        self.broker.with(|state| {
            if let Some(queue) = state.queues.get_mut(&self.queue) {
                queue.stop(self.consumer);
            }
        });
    }

    async fn close(&self) {
        self.stop().await;
        self.leave(false);
    }
}
