//! The receiving end of a queue.

use super::{
    decode::Decoder,
    in_flight::InFlight,
    names::short,
    session,
    shared::{Phase, ReceiverState},
    topology_manager::TopologyManager,
};
use crate::{lock, receive};
use async_trait::async_trait;
use sagabus_core::{Delivery, Error, ErrorKind, ReceiveOptions, Receiver, Result, Settlement, Task};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, oneshot, watch};

/// No more than this is sent ahead: what is, another process cannot have.
const MAX_PREFETCH: usize = 4000;

/// How long a stop waits for the broker.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Dropping it without a [`close`](Receiver::close) is a crash: the channel ends, and what was in flight comes again,
/// marked as redelivered.
pub(super) struct RabbitMqReceiver {
    state: Arc<ReceiverState>,
    task: Mutex<Option<Task<()>>>,
}

impl RabbitMqReceiver {
    /// Begins to consume; an error if that does not work at once.
    pub(super) async fn start(manager: Arc<TopologyManager>, options: ReceiveOptions) -> Result<Self> {
        let window = options.window.max(1);
        // Twice the window is sent ahead, so that what is done behind a gap and waits for its ack does not take its place. (With a quarter more, a quarter of all acks were single ones.)
        let ahead = (2 * window).min(MAX_PREFETCH);
        let runtime = manager.options.runtime.clone();
        let decoder = Decoder {
            queue: manager.names.queue(&options.queue),
            names: manager.names.clone(),
            events: short(manager.names.events())?,
            runtime: runtime.clone(),
        };
        let state = Arc::new(ReceiverState {
            queue: options.queue,
            prefetch: u16::try_from(ahead).unwrap_or(u16::MAX),
            in_flight: Mutex::new(InFlight::new(window, ahead)),
            phase: watch::Sender::new(Phase::Running),
            arrived: Notify::new(),
            below_low_watermark: Notify::new(),
            has_gap_acks: Notify::new(),
            raise_due: Notify::new(),
            quiet: Notify::new(),
            decoder,
            error: Mutex::default(),
            trouble: Mutex::default(),
            manager,
        });
        let (first, outcome) = oneshot::channel();
        let task = runtime.spawn(session::run(Arc::clone(&state), first));
        let receiver = Self { state, task: Mutex::new(Some(task)) };
        match outcome.await {
            Ok(outcome) => outcome.map(|()| receiver),
            Err(_) => Err(Error::new(ErrorKind::Transient, "receiving from rabbitmq ended before it began")),
        }
    }

    pub(super) fn state(&self) -> &Arc<ReceiverState> {
        &self.state
    }
}

impl Drop for RabbitMqReceiver {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Receiver for RabbitMqReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        let state = &self.state;
        let runtime = &state.manager.options.runtime;
        receive::next(runtime, &state.arrived, || Ok((state.take(max.max(1))?, None))).await
    }

    /// The acks are on their way when this returns. Those that the broker does not get, because the connection breaks,
    /// mean that the messages come again.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        let state = &self.state;
        let (has_gap_acks, raise_due) = {
            let mut in_flight = lock(&state.in_flight);
            (in_flight.settle(&settlements), in_flight.take_raise_due())
        };
        if has_gap_acks {
            state.has_gap_acks.notify_one();
        }
        if raise_due {
            state.raise_due.notify_one();
        }
        state.arrived.notify_waiters();
        Ok(())
    }

    async fn stop(&self) {
        let state = &self.state;
        lock(&state.in_flight).stopped = true;
        state.arrived.notify_waiters();
        state.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Stopping;
            }
            running
        });
        let quiet = async {
            loop {
                let quiet = state.quiet.notified();
                tokio::pin!(quiet);
                quiet.as_mut().enable();
                {
                    let in_flight = lock(&state.in_flight);
                    if in_flight.cancelled || !in_flight.is_connected() {
                        return;
                    }
                }
                quiet.await;
            }
        };
        if state.manager.options.runtime.timeout(STOP_TIMEOUT, quiet).await.is_none() {
            tracing::warn!(queue = state.queue, "rabbitmq does not answer to the end of consuming");
        }
    }

    async fn close(&self) {
        self.stop().await;
        self.state.phase.send_replace(Phase::Closing);
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let runtime = &self.state.manager.options.runtime;
            if runtime.timeout(STOP_TIMEOUT * 2, task.join()).await.is_none() {
                tracing::warn!(queue = self.state.queue, "the receiver did not end in time");
            }
        }
        lock(&self.state.in_flight).channel_lost();
    }
}
