//! The state that a receiver shares with the session that feeds it.

use super::{decode::Decoder, in_flight::InFlight, topology_manager::TopologyManager};
use crate::lock;
use sagabus_core::{Delivery, Error, Result};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

pub(super) struct ReceiverState {
    pub(super) manager: Arc<TopologyManager>,
    pub(super) queue: String,
    pub(super) prefetch: u16,
    pub(super) in_flight: Mutex<InFlight>,
    pub(super) phase: watch::Sender<Phase>,
    /// Something arrived, or the window opened.
    pub(super) arrived: Notify,
    /// There was plenty at hand, and now there are few.
    pub(super) below_low_watermark: Notify,
    /// Acks wait behind a gap.
    pub(super) has_gap_acks: Notify,
    /// So many were settled that more may be sent ahead.
    pub(super) raise_due: Notify,
    /// The broker sends nothing more, or the session is over.
    pub(super) quiet: Notify,
    pub(super) decoder: Decoder,
    pub(super) error: Mutex<Option<Error>>,
    /// Why it does not work right now.
    pub(super) trouble: Mutex<Option<Error>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping,
    Closing,
}

impl ReceiverState {
    /// Lets the next `next` fail.
    pub(super) fn report(&self, error: Error) {
        *lock(&self.trouble) = Some(error.clone());
        *lock(&self.error) = Some(error);
        self.arrived.notify_waiters();
    }

    /// It works again.
    pub(super) fn clear(&self) {
        *lock(&self.trouble) = None;
        *lock(&self.error) = None;
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        lock(&self.in_flight).stopped = true;
        self.arrived.notify_waiters();
    }

    pub(super) fn trouble(&self) -> Option<Error> {
        lock(&self.trouble).clone()
    }

    /// Up to `max` deliveries, or the error that was reported if there are none.
    pub(super) fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let (taken, below_low_watermark) = {
            let mut in_flight = lock(&self.in_flight);
            if in_flight.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.queue)));
            }
            (in_flight.take(max), in_flight.take_below_low_watermark())
        };
        if below_low_watermark {
            self.below_low_watermark.notify_one();
        }
        if taken.is_empty()
            && let Some(error) = lock(&self.error).take()
        {
            return Err(error);
        }
        Ok(taken)
    }
}
