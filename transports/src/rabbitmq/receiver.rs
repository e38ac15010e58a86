//! The receiving end of a queue.

use super::{decode::Decoder, desk::Desk, home::Home, names::short, session};
use crate::lock;
use async_trait::async_trait;
use sagabus_core::{Delivery, Error, ErrorKind, ReceiveOptions, Receiver, Result, Settle, Settlement, Task};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, oneshot, watch};

/// A requeued message waits for so long, and up to as much again.
const REQUEUE_PAUSE: Duration = Duration::from_millis(40);

/// No more than this is sent ahead: what is, another process cannot have.
const MOST_PREFETCH: usize = 4000;

/// How long a stop waits for the broker.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Dropping it without a [`close`](Receiver::close) is a crash: the channel ends, and what was in flight comes again,
/// marked as redelivered.
pub(super) struct RabbitReceiver {
    shared: Arc<Shared>,
    task: Mutex<Option<Task<()>>>,
}

pub(super) struct Shared {
    pub(super) home: Arc<Home>,
    pub(super) queue: String,
    pub(super) prefetch: u16,
    pub(super) desk: Mutex<Desk>,
    pub(super) phase: watch::Sender<Phase>,
    /// Something arrived, or the window opened.
    pub(super) arrived: Notify,
    /// There was plenty at hand, and now there are few.
    pub(super) hungry: Notify,
    /// Acks wait behind a gap.
    pub(super) straggling: Notify,
    /// So many were settled that more may be sent ahead.
    pub(super) faster: Notify,
    /// The broker sends nothing more, or the session is over.
    pub(super) quiet: Notify,
    pub(super) decoder: Decoder,
    error: Mutex<Option<Error>>,
    /// Why it does not work right now.
    trouble: Mutex<Option<Error>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping,
    Closing,
}

impl Shared {
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
        lock(&self.desk).stopped = true;
        self.arrived.notify_waiters();
    }

    pub(super) fn trouble(&self) -> Option<Error> {
        lock(&self.trouble).clone()
    }

    /// What there is, or until when to wait.
    fn take(&self, max: usize) -> Result<(Vec<Delivery>, Option<Duration>)> {
        let runtime = &self.home.options.runtime;
        let (taken, due, hungry) = {
            let mut desk = lock(&self.desk);
            if desk.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.queue)));
            }
            let now = runtime.elapsed();
            let taken = desk.take(max, now);
            (taken, desk.due().map(|due| due.saturating_sub(now)), desk.hungry())
        };
        if hungry {
            self.hungry.notify_one();
        }
        if taken.is_empty()
            && let Some(error) = lock(&self.error).take()
        {
            return Err(error);
        }
        Ok((taken, due))
    }
}

impl RabbitReceiver {
    /// Begins to consume; an error if that does not work at once.
    pub(super) async fn start(home: Arc<Home>, options: ReceiveOptions) -> Result<Self> {
        let window = options.window.max(1);
        // Twice the window is sent ahead, so that what is requeued and waits here does not take its place, nor what is done
        // behind a gap and waits for its ack. (With a quarter more, a quarter of all acks were single ones.)
        let ahead = (2 * window).min(MOST_PREFETCH);
        let runtime = home.options.runtime.clone();
        let decoder = Decoder {
            queue: home.names.queue(&options.queue),
            names: home.names.clone(),
            events: short(home.names.events())?,
            runtime: runtime.clone(),
        };
        let shared = Arc::new(Shared {
            queue: options.queue,
            prefetch: u16::try_from(ahead).unwrap_or(u16::MAX),
            desk: Mutex::new(Desk::new(window, ahead)),
            phase: watch::Sender::new(Phase::Running),
            arrived: Notify::new(),
            hungry: Notify::new(),
            straggling: Notify::new(),
            faster: Notify::new(),
            quiet: Notify::new(),
            decoder,
            error: Mutex::default(),
            trouble: Mutex::default(),
            home,
        });
        let (first, outcome) = oneshot::channel();
        let task = runtime.spawn(session::run(Arc::clone(&shared), first));
        let receiver = Self { shared, task: Mutex::new(Some(task)) };
        match outcome.await {
            Ok(outcome) => outcome.map(|()| receiver),
            Err(_) => Err(Error::new(ErrorKind::Transient, "receiving from rabbitmq ended before it began")),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for RabbitReceiver {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Receiver for RabbitReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        let runtime = &self.shared.home.options.runtime;
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let (deliveries, due) = self.shared.take(max.max(1))?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            match due {
                Some(pause) => {
                    tokio::select! {
                        biased;
                        () = arrived => {}
                        // a timer's granularity is a millisecond: without it this would spin through the last one
                        () = runtime.sleep(pause.max(Duration::from_millis(1))) => {}
                    }
                }
                None => arrived.await,
            }
        }
    }

    /// The acks are on their way when this returns. Those that the broker does not get, because the connection breaks,
    /// mean that the messages come again.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        let shared = &self.shared;
        let runtime = &shared.home.options.runtime;
        let requeued = settlements.iter().any(|s| s.settle == Settle::Requeue);
        let pause = REQUEUE_PAUSE + if requeued { runtime.jitter(REQUEUE_PAUSE) } else { Duration::ZERO };
        let (straggling, faster) = {
            let mut desk = lock(&shared.desk);
            (desk.settle(&settlements, runtime.elapsed() + pause), desk.faster())
        };
        if straggling {
            shared.straggling.notify_one();
        }
        if faster {
            shared.faster.notify_one();
        }
        shared.arrived.notify_waiters();
        Ok(())
    }

    async fn stop(&self) {
        let shared = &self.shared;
        lock(&shared.desk).stopped = true;
        shared.arrived.notify_waiters();
        shared.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Stopping;
            }
            running
        });
        let quiet = async {
            loop {
                let quiet = shared.quiet.notified();
                tokio::pin!(quiet);
                quiet.as_mut().enable();
                {
                    let desk = lock(&shared.desk);
                    if desk.cancelled || !desk.connected() {
                        return;
                    }
                }
                quiet.await;
            }
        };
        if shared.home.options.runtime.timeout(STOP_PATIENCE, quiet).await.is_none() {
            tracing::warn!(queue = shared.queue, "rabbitmq does not answer to the end of consuming");
        }
    }

    async fn close(&self) {
        self.stop().await;
        self.shared.phase.send_replace(Phase::Closing);
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let runtime = &self.shared.home.options.runtime;
            if runtime.timeout(STOP_PATIENCE * 2, task.join()).await.is_none() {
                tracing::warn!(queue = self.shared.queue, "the receiver did not end in time");
            }
        }
        lock(&self.shared.desk).lost();
    }
}
