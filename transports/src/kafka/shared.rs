//! The state that a receiver shares with its thread.

use super::{cluster::Cluster, in_flight::InFlight, subscriptions::Subscriptions};
use crate::lock;
use sagabus_core::{Delivery, Error, Result};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    thread::Thread,
};
use tokio::sync::{Notify, watch};

/// The state of a receiver.
pub(super) struct ReceiverState {
    pub(super) cluster: Arc<Cluster>,
    pub(super) queue: String,
    /// The topics that are read, and the type of event that each one is for.
    pub(super) topics: HashMap<Arc<str>, Option<String>>,
    subscriptions: Subscriptions,
    pub(super) in_flight: Mutex<InFlight>,
    /// Notified when something arrived, or the window opened.
    pub(super) arrived: Notify,
    phase: watch::Sender<Phase>,
    ended: watch::Sender<bool>,
    thread: OnceLock<Thread>,
    /// The error of the next `next`.
    error: Mutex<Option<Error>>,
    /// The error of every `next` from now on: a person is needed.
    halted: Mutex<Option<Error>>,
}

/// The phase of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Closing,
    Dropped,
}

impl ReceiverState {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        queue: String,
        topics: HashMap<Arc<str>, Option<String>>,
        subscriptions: Subscriptions,
        in_flight: InFlight,
    ) -> Self {
        Self {
            cluster,
            queue,
            topics,
            subscriptions,
            in_flight: Mutex::new(in_flight),
            arrived: Notify::new(),
            phase: watch::Sender::new(Phase::Running),
            ended: watch::Sender::new(false),
            thread: OnceLock::new(),
            error: Mutex::default(),
            halted: Mutex::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Leaves the phase of running; a later call changes nothing.
    pub(super) fn leave(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let running = *now == Phase::Running;
            if running {
                *now = phase;
            }
            running
        });
        self.wake();
    }

    /// Lets the next `next` fail.
    pub(super) fn report(&self, error: Error) {
        *lock(&self.error) = Some(error);
        self.arrived.notify_waiters();
    }

    /// Lets every `next` fail, until a person has seen to it.
    pub(super) fn halt(&self, error: Error) {
        tracing::error!(queue = self.queue, %error, "receiving from kafka has halted");
        *lock(&self.halted) = Some(error);
        self.arrived.notify_waiters();
    }

    /// The error that has halted the receiver.
    pub(super) fn halted(&self) -> Option<Error> {
        lock(&self.halted).clone()
    }

    /// Notes that the thread has ended: nothing comes any more.
    pub(super) fn end(&self) {
        self.arrived.notify_waiters();
        self.ended.send_replace(true);
    }

    /// Waits until the thread has ended.
    pub(super) async fn wait_for_end(&self) {
        // the sender lives as long as this
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Sets the thread to wake, once.
    pub(super) fn set_thread(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The ranges of a partition that are wanted; `None` for all of it.
    pub(super) fn wanted(&self, topic: &str, partition: i32) -> Option<Vec<(i64, i64)>> {
        let event = self.topics.get(topic)?.as_ref()?;
        Some(self.subscriptions.ranges(event, partition))
    }

    /// The deliveries at hand, at most `max`.
    pub(super) fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let (taken, wake) = {
            let mut in_flight = lock(&self.in_flight);
            if in_flight.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.queue)));
            }
            if let Some(error) = self.halted() {
                return Err(error);
            }
            let taken = in_flight.take(max);
            (taken, in_flight.needs_commit_now() || in_flight.has_room_again())
        };
        if wake {
            self.wake();
        }
        if taken.is_empty()
            && let Some(error) = lock(&self.error).take()
        {
            return Err(error);
        }
        Ok(taken)
    }
}
