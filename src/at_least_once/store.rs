//! The port of a store, where there is none.

use super::{admin::NoAdmin, requeue};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, DatabaseId, Disposition, DuePage, DueQuery, Error, ErrorKind, Lease, LeaseRequest,
    Leases, LoadReply, LoadRequest, MessageId, NodeId, OffsetStore, OutboxId, OutboxRow, Outcome, Outgoing, Owner,
    Queues, Result, Runtime, SendOutcome, Store, StoreAdmin, Timestamp, Transaction, Transport,
};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A store that keeps nothing: it commits by sending.
pub(crate) struct AtLeastOnceStore {
    endpoint: String,
    database: DatabaseId,
    transport: Arc<dyn Transport>,
    runtime: Runtime,
    longest: Duration,
    /// Failures of what is in flight in this process.
    attempts: Mutex<HashMap<(Arc<str>, MessageId), u32>>,
}

/// Commits wait for confirms; so several are under way.
const COMMITTER_COUNT: usize = 4;

impl AtLeastOnceStore {
    pub(crate) fn new(endpoint: &str, transport: &Arc<dyn Transport>, runtime: Runtime) -> Result<Self> {
        let Some(longest) = transport.capabilities().longest_delay else {
            return Err(Error::unsupported(format!(
                "endpoint {endpoint} has `.at_least_once()`, and a transport that cannot delay messages, so that failed ones \
                 could not be tried again later: add a store instead"
            )));
        };
        Ok(Self {
            endpoint: endpoint.to_string(),
            // no transport has this one
            database: DatabaseId(String::new()),
            transport: transport.clone(),
            runtime,
            longest,
            attempts: Mutex::default(),
        })
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<(Arc<str>, MessageId), u32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse<T>(&self, what: &str) -> Result<T> {
        Err(Error::unsupported(format!("{what}: endpoint {} has no store", self.endpoint)))
    }

    /// Adds the messages that a disposition sends.
    fn dispose(&self, at: usize, handler: &str, disposition: Disposition, sends: &mut StorelessBatch) {
        match disposition {
            Disposition::Handled | Disposition::Dropped { .. } => {}
            Disposition::Deferred { message, attempts, delay, .. } => {
                let again = requeue::retry(&self.endpoint, handler, &message, attempts);
                if delay.is_zero() {
                    sends.now.push((at, again));
                } else {
                    sends.delayed.push((at, (again, delay.min(self.longest))));
                }
            }
            Disposition::DeadLettered { message, attempts, reason, detail } => {
                let why = (reason.as_str(), detail.join(": "));
                sends
                    .now
                    .push((at, requeue::dead_letter(&self.endpoint, handler, &message, attempts, (why.0, &why.1))));
            }
            Disposition::Parked { .. } => {
                // only sagas and ordered endpoints park
                sends.failed[at] = self.refuse::<()>("park a message").err();
            }
        }
    }

    /// Sends the messages of a commit; those that can never be sent become dead letters.
    async fn send(&self, sends: &mut StorelessBatch) {
        let (units, messages): (Vec<usize>, Vec<Outgoing>) = std::mem::take(&mut sends.now).into_iter().unzip();
        let mut unroutable = Vec::new();
        if !messages.is_empty() {
            let outcomes = self.transport.send_batch(&messages).await;
            unroutable.extend(sends.record_outcomes(units, messages, outcomes));
        }
        let (units, messages): (Vec<usize>, Vec<(Outgoing, Duration)>) =
            std::mem::take(&mut sends.delayed).into_iter().unzip();
        if !messages.is_empty() {
            let outcomes = self.transport.send_delayed(&messages).await;
            unroutable.extend(sends.record_outcomes(
                units,
                messages.into_iter().map(|(outgoing, _)| outgoing).collect(),
                outcomes,
            ));
        }
        if unroutable.is_empty() {
            return;
        }
        let letter = |(at, outgoing, reason): (usize, Outgoing, String)| {
            (at, requeue::dead_letter(&self.endpoint, "", &outgoing.message, 0, ("unroutable", &reason)))
        };
        let (units, messages): (Vec<usize>, Vec<Outgoing>) = unroutable.into_iter().map(letter).unzip();
        let outcomes = self.transport.send_batch(&messages).await;
        for (at, _, reason) in sends.record_outcomes(units, messages, outcomes) {
            sends.failed[at] = Some(Error::new(ErrorKind::Transient, format!("send a dead letter: {reason}")));
        }
    }
}

/// The messages of one commit, each with the number of its unit, and the failures of its units.
struct StorelessBatch {
    now: Vec<(usize, Outgoing)>,
    delayed: Vec<(usize, (Outgoing, Duration))>,
    failed: Vec<Option<Error>>,
}

impl StorelessBatch {
    /// Records the failures; returns the messages that can never be sent, each with the reason.
    fn record_outcomes(
        &mut self,
        units: Vec<usize>,
        messages: Vec<Outgoing>,
        outcomes: Vec<SendOutcome>,
    ) -> Vec<(usize, Outgoing, String)> {
        let mut unroutable = Vec::new();
        for ((at, outgoing), outcome) in units.into_iter().zip(messages).zip(outcomes) {
            match outcome {
                SendOutcome::Done => {}
                SendOutcome::Unroutable(reason) => unroutable.push((at, outgoing, reason)),
                SendOutcome::Retry(error) | SendOutcome::Unknown(error) => self.failed[at] = Some(error),
            }
        }
        unroutable
    }
}

#[async_trait]
impl Store for AtLeastOnceStore {
    fn database(&self) -> &DatabaseId {
        &self.database
    }

    fn committers(&self) -> usize {
        COMMITTER_COUNT
    }

    fn longest_delay(&self) -> Option<Duration> {
        Some(self.longest)
    }

    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.runtime.now())
    }

    async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        Ok(LoadReply {
            probes: vec![false; request.probes.len()],
            sagas: vec![None; request.sagas.len()],
            blocked_keys: vec![false; request.blocked_keys.len()],
        })
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        let count = batch.units.len();
        let mut sends =
            StorelessBatch { now: Vec::with_capacity(count), delayed: Vec::new(), failed: vec![None; count] };
        let mut counted = Vec::new();
        for (at, unit) in batch.units.into_iter().enumerate() {
            sends.now.extend(unit.sends.into_iter().map(|send| (at, send)));
            sends.delayed.extend(unit.delayed_sends.into_iter().map(|later| (at, later)));
            self.dispose(at, &unit.handler, unit.disposition, &mut sends);
            if unit.has_attempt_row {
                counted.push((at, (unit.handler, unit.message_id)));
            }
        }
        self.send(&mut sends).await;
        let mut attempts = self.attempts();
        for (at, attempt) in counted {
            if sends.failed[at].is_none() {
                attempts.remove(&attempt);
            }
        }
        let outcome = |failed: Option<Error>| match failed {
            None => Outcome::Applied { outbox: Vec::new(), blocked_by_predecessor: false },
            Some(error) => Outcome::Failed(error),
        };
        CommitReply { outcomes: sends.failed.into_iter().map(outcome).collect(), cleaned: true }
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        self.refuse("begin a transaction")
    }

    async fn enlist(&self, _: &mut (dyn Any + Send), _: &Owner, _: bool, _: Vec<Outgoing>) -> Result<()> {
        self.refuse("send in a transaction")
    }

    async fn due(&self, _: &DueQuery) -> Result<DuePage> {
        Ok(DuePage::default())
    }

    async fn outbox_orphans(&self, _: &Owner, _: usize) -> Result<Vec<OutboxRow>> {
        Ok(Vec::new())
    }

    async fn outbox_own(&self, _: &Owner, _: OutboxId, _: usize) -> Result<Vec<OutboxRow>> {
        Ok(Vec::new())
    }

    async fn outbox_delete(&self, _: &[OutboxId]) -> Result<()> {
        Ok(())
    }

    async fn outbox_dead_letter(&self, _: &Owner, _: &[(OutboxId, String)]) -> Result<()> {
        Ok(())
    }

    async fn count_attempt(&self, _: &str, handler: &str, message: MessageId) -> Result<u32> {
        let mut attempts = self.attempts();
        let count = attempts.entry((handler.into(), message)).or_default();
        *count += 1;
        Ok(*count)
    }

    async fn wait_due(&self, _: &str, at_most: Duration) {
        self.runtime.sleep(at_most).await;
    }

    async fn prune(&self, _: Duration) -> Result<u64> {
        Ok(0)
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(NoLeases)
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        None
    }

    fn queues(&self) -> Option<Arc<dyn Queues>> {
        None
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(NoAdmin { endpoint: self.endpoint.clone() })
    }

    async fn close(&self) {}
}

/// Nothing is divided: the broker hands out the messages.
struct NoLeases;

#[async_trait]
impl Leases for NoLeases {
    async fn heartbeat(&self, _: &LeaseRequest) -> Result<Lease> {
        Ok(Lease { members: 1, ..Lease::default() })
    }

    async fn leave(&self, _: &str, _: NodeId) -> Result<()> {
        Ok(())
    }
}
