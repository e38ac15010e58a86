//! The receiving end of a queue.

use super::{batched_deletes::BatchedDeletes, prefetcher::Prefetcher, read_ahead::ReadAhead, shared::ReceiverState};
use crate::{lock, receive};
use async_trait::async_trait;
use sagabus_core::{
    Delivery, LeaseKeeper, LeaseKeeperOptions, LeaseView, Queues, ReceiveOptions, Receiver, Result, Settlement, Task,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Dropping it without a [`close`](Receiver::close) is a crash: the lease lapses, and the shards' next owner takes what
/// was handed out for suspect.
pub(super) struct SqlReceiver {
    shared: Arc<ReceiverState>,
    deletes: BatchedDeletes,
    prefetcher: Mutex<Option<Task<()>>>,
}

impl SqlReceiver {
    pub(super) async fn start(queues: Arc<dyn Queues>, options: ReceiveOptions, poll: Duration) -> Result<Self> {
        let group: Arc<str> = format!("queue:{}", options.queue).into();
        let keeper = LeaseKeeper::start(LeaseKeeperOptions {
            leases: queues.leases(),
            group: group.to_string(),
            node: options.node,
            ttl: options.lease,
            shards: true,
            runtime: options.runtime.clone(),
        })
        .await?;
        let shared = Arc::new(ReceiverState {
            queues,
            poll,
            keeper,
            read_ahead: Mutex::new(ReadAhead::new(options.window, options.ordered)),
            arrived: Notify::new(),
            demand: Notify::new(),
            closing: Notify::new(),
            group: options.ordered.then_some(group),
            error: Mutex::default(),
            closed: AtomicBool::new(false),
            options,
        });
        let prefetcher = shared.options.runtime.spawn(Prefetcher::new(Arc::clone(&shared)).run());
        Ok(Self { shared, deletes: BatchedDeletes::default(), prefetcher: Mutex::new(Some(prefetcher)) })
    }

    pub(super) fn shared(&self) -> &Arc<ReceiverState> {
        &self.shared
    }
}

impl Drop for SqlReceiver {
    fn drop(&mut self) {
        if let Some(prefetcher) = lock(&self.prefetcher).take() {
            prefetcher.abort();
        }
    }
}

#[async_trait]
impl Receiver for SqlReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        let shared = &self.shared;
        receive::next(&shared.options.runtime, &shared.arrived, || Ok((shared.take(max.max(1))?, None))).await
    }

    /// What is Done is deleted before this returns, together with what others settle meanwhile. After an error, or when
    /// cancelled, the deletes go with a later call; repeating the settlement does no harm.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        let shared = &self.shared;
        let settled = lock(&shared.read_ahead).settle(&settlements);
        shared.release(settled.release);
        shared.arrived.notify_waiters();
        if settled.done.is_empty() {
            return Ok(());
        }
        self.deletes.add(settled.done);
        self.deletes.flush(shared).await?;
        let release = lock(&shared.read_ahead).drained();
        shared.release(release);
        Ok(())
    }

    async fn stop(&self) {
        lock(&self.shared.read_ahead).stop();
        self.shared.arrived.notify_waiters();
    }

    async fn close(&self) {
        self.stop().await;
        let shared = &self.shared;
        if let Err(error) = self.deletes.flush(shared).await {
            tracing::warn!(queue = %shared.options.queue, %error, "settled messages will come again");
        }
        shared.closed.store(true, Ordering::Release);
        shared.closing.notify_one();
        let prefetcher = lock(&self.prefetcher).take();
        if let Some(prefetcher) = prefetcher {
            prefetcher.join().await;
        }
        if let Err(error) = shared.keeper.close().await {
            tracing::warn!(queue = %shared.options.queue, %error, "could not leave: the lease will lapse");
        }
        shared.follow(&LeaseView { generation: u64::MAX, ..LeaseView::default() });
    }
}
