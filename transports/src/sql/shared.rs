//! The state that a receiver shares with the task that reads ahead for it.

use super::{decode, read_ahead::ReadAhead};
use crate::lock;
use sagabus_core::{Delivery, Error, LeaseKeeper, LeaseView, Queues, ReceiveOptions, Result};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// The state of one receiver.
pub(super) struct ReceiverState {
    pub(super) queues: Arc<dyn Queues>,
    pub(super) options: ReceiveOptions,
    pub(super) poll: Duration,
    pub(super) keeper: LeaseKeeper,
    pub(super) read_ahead: Mutex<ReadAhead>,
    /// Rows became ready, or the window opened: for `next`.
    pub(super) arrived: Notify,
    /// Rows were taken: for the prefetcher.
    pub(super) demand: Notify,
    pub(super) closing: Notify,
    pub(super) group: Option<Arc<str>>,
    pub(super) error: Mutex<Option<Error>>,
    pub(super) closed: AtomicBool,
}

impl ReceiverState {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Follows the lease.
    pub(super) fn follow(&self, view: &LeaseView) {
        let release = lock(&self.read_ahead).follow(view);
        self.release(release);
        if view.shards.is_empty()
            && let Some(error) = self.keeper.error()
        {
            self.report(error);
        }
    }

    pub(super) fn release(&self, shards: Vec<(u16, i64)>) {
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

    pub(super) fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let (taken, below_low_watermark) = {
            let mut read_ahead = lock(&self.read_ahead);
            if read_ahead.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.options.queue)));
            }
            (read_ahead.take(max), read_ahead.below_low_watermark())
        };
        if below_low_watermark {
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
