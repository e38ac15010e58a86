//! The receiving end of a queue.

use super::{decode, deletes::Deletes, desk::Desk, pump::Pump};
use crate::{lock, receive};
use async_trait::async_trait;
use sagabus_core::{
    Delivery, Error, LeaseKeeper, LeaseKeeperOptions, LeaseView, Queues, ReceiveOptions, Receiver, Result, Settle,
    Settlement, Task,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// A requeued row waits for so long, and up to as much again.
const REQUEUE_PAUSE: Duration = Duration::from_millis(40);

/// Dropping it without a [`close`](Receiver::close) is a crash: the lease lapses, and the shards' next owner takes what
/// was handed out for suspect.
pub(super) struct SqlReceiver {
    shared: Arc<Shared>,
    pump: Mutex<Option<Task<()>>>,
}

pub(super) struct Shared {
    pub(super) queues: Arc<dyn Queues>,
    pub(super) options: ReceiveOptions,
    pub(super) poll: Duration,
    pub(super) keeper: LeaseKeeper,
    pub(super) desk: Mutex<Desk>,
    /// Rows became ready, or the window opened: for `next`.
    pub(super) arrived: Notify,
    /// Rows were taken: for the pump.
    pub(super) demand: Notify,
    pub(super) closing: Notify,
    group: Option<Arc<str>>,
    deletes: Deletes,
    error: Mutex<Option<Error>>,
    closed: AtomicBool,
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
        let shared = Arc::new(Shared {
            queues,
            poll,
            keeper,
            desk: Mutex::new(Desk::new(options.window, options.ordered)),
            arrived: Notify::new(),
            demand: Notify::new(),
            closing: Notify::new(),
            group: options.ordered.then_some(group),
            deletes: Deletes::default(),
            error: Mutex::default(),
            closed: AtomicBool::new(false),
            options,
        });
        let pump = shared.options.runtime.spawn(Pump::new(Arc::clone(&shared)).run());
        Ok(Self { shared, pump: Mutex::new(Some(pump)) })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for SqlReceiver {
    fn drop(&mut self) {
        if let Some(pump) = lock(&self.pump).take() {
            pump.abort();
        }
    }
}

impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Follows the lease.
    pub(super) fn follow(&self, view: &LeaseView) {
        let release = lock(&self.desk).follow(view);
        self.release(release);
        if view.shards.is_empty()
            && let Some(error) = self.keeper.error()
        {
            self.report(error);
        }
    }

    fn release(&self, shards: Vec<(u16, i64)>) {
        for (shard, epoch) in shards {
            self.keeper.release(shard, epoch);
        }
    }

    /// Lets the next `next` fail.
    pub(super) fn report(&self, error: Error) {
        *lock(&self.error) = Some(error);
        self.arrived.notify_waiters();
    }

    /// What was reported and not yet asked for no longer holds.
    pub(super) fn recovered(&self) {
        lock(&self.error).take();
    }

    /// Why it cannot work right now, if so.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.keeper.error().or_else(|| lock(&self.error).clone())
    }

    fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let (taken, hungry) = {
            let mut desk = lock(&self.desk);
            if desk.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.options.queue)));
            }
            (desk.take(max), desk.hungry())
        };
        if hungry {
            self.demand.notify_one();
        }
        if taken.is_empty()
            && let Some(error) = lock(&self.error).take()
        {
            return Err(error);
        }
        let group = self.group.as_ref();
        let runtime = &self.options.runtime;
        Ok(taken.into_iter().map(|row| decode::delivery(row, group, runtime)).collect())
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
        let now = shared.options.runtime.elapsed();
        let due = now + REQUEUE_PAUSE + shared.options.runtime.jitter(REQUEUE_PAUSE);
        let settled = lock(&shared.desk).settle(&settlements, now, due);
        shared.release(settled.release);
        shared.arrived.notify_waiters();
        if settlements.iter().any(|s| s.settle == Settle::Requeue) {
            shared.demand.notify_one();
        }
        if settled.done.is_empty() {
            return Ok(());
        }
        shared.deletes.add(settled.done);
        shared.deletes.flush(shared).await?;
        let release = lock(&shared.desk).drained();
        shared.release(release);
        Ok(())
    }

    async fn stop(&self) {
        lock(&self.shared.desk).stop();
        self.shared.arrived.notify_waiters();
    }

    async fn close(&self) {
        self.stop().await;
        let shared = &self.shared;
        if let Err(error) = shared.deletes.flush(shared).await {
            tracing::warn!(queue = %shared.options.queue, %error, "settled messages will come again");
        }
        shared.closed.store(true, Ordering::Release);
        shared.closing.notify_one();
        let pump = lock(&self.pump).take();
        if let Some(pump) = pump {
            pump.join().await;
        }
        if let Err(error) = shared.keeper.close().await {
            tracing::warn!(queue = %shared.options.queue, %error, "could not leave: the lease will lapse");
        }
        shared.follow(&LeaseView { generation: u64::MAX, ..LeaseView::default() });
    }
}
