//! The shared handle and what a test can do to it.

use super::{
    BrokerFaults, DeliveryFault, MemoryTransport, SendFault,
    faults::FaultScript,
    queue::{Entry, Pick, Queue},
};
use crate::lock;
use sagabus_core::{
    Capabilities, Delivery, Destination, Envelope, Error, ErrorKind, NodeId, Outgoing, Result, Runtime, SendOutcome,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// An in-process broker. Cloning shares it.
///
/// Every [`transport`](MemoryBroker::transport) is as if it belonged to a process of its own.
#[derive(Clone)]
pub struct MemoryBroker(Arc<Inner>);

impl std::fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBroker").field("capabilities", &self.0.capabilities).finish_non_exhaustive()
    }
}

struct Inner {
    runtime: Runtime,
    capabilities: Capabilities,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) topics: BTreeMap<String, BTreeSet<String>>,
    faults: FaultScript,
    down: bool,
    numbers: u64,
    stats: MemoryStats,
}

/// What happened on a broker. A test that relies on a fault should see it counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Messages put into queues, duplicates included.
    pub queued: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Sends that were refused.
    pub refused: u64,
    /// Sends whose outcome was Unknown.
    pub unknown: u64,
    /// Messages that were queued twice.
    pub duplicated: u64,
    /// Messages that were delayed.
    pub delayed: u64,
    /// Messages handed out again while in flight.
    pub redelivered: u64,
}

impl MemoryBroker {
    /// An empty broker that can do everything.
    pub fn new(runtime: Runtime) -> Self {
        let mut capabilities = Capabilities::all();
        capabilities.longest_delay = Some(Duration::MAX);
        Self::with_capabilities(runtime, capabilities)
    }

    /// One that lacks something, for tests of how that is refused.
    pub fn with_capabilities(runtime: Runtime, capabilities: Capabilities) -> Self {
        Self(Arc::new(Inner { runtime, capabilities, state: Mutex::default() }))
    }

    /// A handle as of another process.
    pub fn transport(&self) -> MemoryTransport {
        let handle = self.number();
        MemoryTransport::new(self.clone(), handle)
    }

    /// Sets how often it misbehaves from now on.
    pub fn set_faults(&self, faults: BrokerFaults) {
        lock(&self.0.state).faults.chance = faults;
    }

    /// What becomes of the next sends, one by one; `None` is nothing special. Chance decides again after that.
    pub fn script_sends(&self, faults: impl IntoIterator<Item = Option<SendFault>>) {
        lock(&self.0.state).faults.sends.extend(faults);
    }

    /// What becomes of the next deliveries.
    pub fn script_deliveries(&self, faults: impl IntoIterator<Item = Option<DeliveryFault>>) {
        lock(&self.0.state).faults.deliveries.extend(faults);
    }

    /// Takes the broker down, or up again. While it is down sends are to be retried, and receiving fails.
    pub fn set_down(&self, down: bool) {
        let mut state = lock(&self.0.state);
        state.down = down;
        for queue in state.queues.values() {
            queue.notify.notify_waiters();
        }
    }

    /// Breaks a node's connections: what it had in flight is delivered again, and its tokens mean nothing any more.
    /// Answers how many receivers it hit.
    pub fn cut(&self, node: NodeId) -> usize {
        lock(&self.0.state).queues.values_mut().map(|queue| queue.cut(node)).sum()
    }

    /// How many messages a queue holds, those in flight included; `None` if it does not exist.
    pub fn depth(&self, queue: &str) -> Option<usize> {
        lock(&self.0.state).queues.get(queue).map(Queue::depth)
    }

    /// Puts a message into a queue that nobody can make sense of.
    pub fn inject(&self, queue: &str, message: Envelope, defect: String) -> Result<()> {
        let sequence = self.number();
        let mut state = lock(&self.0.state);
        let Some(queue) = state.queues.get_mut(queue) else {
            return Err(Error::new(ErrorKind::NotFound, format!("queue {queue} does not exist")));
        };
        let entry = Entry { message, defect: Some(defect), suspect: false };
        queue.push(sequence, entry, None);
        Ok(())
    }

    /// What happened so far.
    pub fn stats(&self) -> MemoryStats {
        lock(&self.0.state).stats
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    /// A number never given before: a handle, a consumer, a position in a queue.
    pub(super) fn number(&self) -> u64 {
        lock(&self.0.state).number()
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.0.state))
    }

    pub(super) fn check(&self) -> Result<()> {
        lock(&self.0.state).check()
    }

    pub(super) fn send(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        let now = self.0.runtime.elapsed();
        let mut state = lock(&self.0.state);
        batch.iter().map(|outgoing| state.send(outgoing, &self.0.runtime, now, None)).collect()
    }

    pub(super) fn send_delayed(&self, outgoing: &Outgoing, delay: Duration) -> SendOutcome {
        let now = self.0.runtime.elapsed();
        lock(&self.0.state).send(outgoing, &self.0.runtime, now, Some(now.saturating_add(delay)))
    }

    /// Up to `max` deliveries for a consumer; none, and until when it is no use to ask again.
    pub(super) fn take(&self, queue: &str, consumer: u64, max: usize) -> Result<(Vec<Delivery>, Option<Duration>)> {
        let now = self.0.runtime.elapsed();
        let mut state = lock(&self.0.state);
        let mut deliveries = Vec::new();
        while deliveries.len() < max {
            match state.pick(queue, consumer, &self.0.runtime, now)? {
                Ok(delivery) => deliveries.push(delivery),
                Err(until) => return Ok((deliveries, until)),
            }
        }
        Ok((deliveries, None))
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn check(&self) -> Result<()> {
        if self.down {
            return Err(Error::new(ErrorKind::Transient, "the broker is down"));
        }
        Ok(())
    }

    fn send(
        &mut self,
        outgoing: &Outgoing,
        runtime: &Runtime,
        now: Duration,
        not_before: Option<Duration>,
    ) -> SendOutcome {
        if let Err(error) = self.check() {
            return SendOutcome::Retry(error);
        }
        let ordered = outgoing.message.headers.order_key.is_some();
        let fault = self.faults.send(runtime, ordered);
        let lost = |text: &str| SendOutcome::Unknown(Error::new(ErrorKind::Unknown, text));
        let (copies, late) = match fault {
            Some(SendFault::Refuse) => {
                self.stats.refused += 1;
                return SendOutcome::Retry(Error::new(ErrorKind::Transient, "the broker is busy"));
            }
            Some(SendFault::Lose) => {
                self.stats.unknown += 1;
                return lost("the connection broke while sending");
            }
            Some(SendFault::Duplicate) => (2, None),
            Some(SendFault::Delay(delay)) => (1, Some(now + delay)),
            Some(SendFault::LoseConfirm) | None => (1, None),
        };
        let until = late.max(not_before);
        let queues: Vec<String> = match &outgoing.to {
            Destination::Queue(name) if self.queues.contains_key(name) => vec![name.clone()],
            Destination::Queue(name) => return SendOutcome::Unroutable(format!("queue {name} does not exist")),
            Destination::Topic(name) => self.topics.get(name).into_iter().flatten().cloned().collect(),
        };
        self.stats.duplicated += u64::from(copies == 2);
        self.stats.delayed += u64::from(late.is_some());
        for _ in 0..copies {
            for name in &queues {
                let sequence = self.number();
                self.stats.queued += 1;
                let entry = Entry { message: outgoing.message.clone(), defect: None, suspect: false };
                if let Some(queue) = self.queues.get_mut(name) {
                    queue.push(sequence, entry, until);
                }
            }
        }
        if fault == Some(SendFault::LoseConfirm) {
            self.stats.unknown += 1;
            return lost("the confirm was lost");
        }
        SendOutcome::Done
    }

    #[allow(clippy::type_complexity, reason = "private; the inner error is the moment to ask again")]
    fn pick(
        &mut self,
        queue: &str,
        consumer: u64,
        runtime: &Runtime,
        now: Duration,
    ) -> Result<Result<Delivery, Option<Duration>>> {
        let tag = self.number();
        let Some(queue) = self.queues.get_mut(queue) else {
            return Err(Error::closed(format!("queue {queue} is gone")));
        };
        if self.down {
            return Err(Error::new(ErrorKind::Transient, "the broker is down"));
        }
        match queue.pick(consumer, tag, now) {
            Pick::Stopped => Err(Error::closed("the receiver is stopped")),
            Pick::Nothing(until) => Ok(Err(until)),
            Pick::Taken { entry, token, sequence, shard } => {
                self.stats.delivered += 1;
                if self.faults.delivery(runtime) == Some(DeliveryFault::Redeliver) {
                    self.stats.redelivered += 1;
                    queue.repeat(sequence, shard, Entry::clone(&entry));
                }
                Ok(Ok(Delivery {
                    message: Arc::new(entry.message),
                    defect: entry.defect,
                    token,
                    gate: None,
                    fence: None,
                    suspect: entry.suspect,
                    anonymous: false,
                }))
            }
        }
    }
}
