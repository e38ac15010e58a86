//! From finished units to outcomes.

use super::{
    Engine, Event,
    unit::{LaneKey, Stage, Tally, UnitId},
};
use foldhash::HashSet;
use sagabus_core::{
    CommitBatch, CommitReply, Disposition, Gate, OutboxId, Outcome, RowTable, SagaChange, Transaction, UnitOfWork,
    crash, sabotage,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The longest that a batch which is not full waits while what was committed before it is still being sent.
const MAX_LINGER: Duration = Duration::from_millis(10);

/// One stream of commits: takes what queued up while its last one was under way.
#[derive(Default)]
pub(super) struct Committer {
    queue: VecDeque<(UnitId, UnitOfWork)>,
    busy: bool,
    /// Until when its next batch waits for company.
    linger: Option<Duration>,
}

impl Committer {
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.queue.is_empty()
    }

    /// The next batch: whatever there is, but nothing of a saga behind the unit that completes it, and no timer of a saga
    /// behind a unit that changes its timers. A store opens all gates of a batch before it does anything else: in the
    /// same batch a timeout would take effect that the unit before it has cancelled.
    fn take(&mut self, most: usize) -> (Vec<UnitId>, Vec<UnitOfWork>) {
        let room = self.queue.len().min(most);
        let mut batch = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut completed: HashSet<(Arc<str>, String)> = HashSet::default();
        let mut retimed: HashSet<(Arc<str>, String)> = HashSet::default();
        while batch.0.len() < most {
            let Some((_, work)) = self.queue.front() else { break };
            let key = work.saga.as_ref().map(|saga| (saga.kind.clone(), saga.key.clone()));
            if let Some(key) = &key {
                let timer = matches!(&work.gate, Gate::Row(row) if row.table == RowTable::Timer);
                if completed.contains(key) || (timer && retimed.contains(key)) {
                    break;
                }
            }
            if let (Some(key), Some(saga)) = (key, &work.saga) {
                if matches!(saga.change, SagaChange::Complete { .. }) {
                    completed.insert(key);
                } else if !work.timers.is_empty() {
                    retimed.insert(key);
                }
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }
}

impl Engine {
    /// Hands a message that no handler handles to the committer.
    pub(super) fn dispose(&mut self, id: UnitId, disposition: Disposition) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let work = unit.disposed(disposition);
        self.submit(id, work, None);
    }

    /// Hands a finished unit to its committer, or finishes its own transaction.
    pub(super) fn submit(&mut self, id: UnitId, work: UnitOfWork, transaction: Option<Box<dyn Transaction>>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.stage = Stage::Committing;
        if sabotage::active("dispatch-before-commit") {
            let early = work.sends.iter().map(|send| (OutboxId(-1), send.clone())).collect();
            self.dispatcher.send(early);
        }
        let Some(transaction) = transaction else {
            let shard = unit.lane.as_ref().map(|lane| usize::from(sagabus_core::shard_of(lane.key.as_bytes())));
            let at = match shard {
                Some(shard) => shard % self.committers.len(),
                None if self.shared.at_least_once => self.least_loaded(),
                None => 0,
            };
            return self.committers[at].queue.push_back((id, work));
        };
        let batch = self.batch(vec![work], Vec::new());
        let sender = self.sender.clone();
        self.shared.info.runtime.spawn(async move {
            let reply = transaction.finish(batch).await;
            // the engine may have ended meanwhile
            let _ = sender.send(Event::OwnTransactionDone { unit: id, reply });
        });
    }

    /// The committer with the least to do: without a saga it does not matter which.
    fn least_loaded(&self) -> usize {
        let load = |committer: &Committer| (committer.busy, committer.queue.len());
        let least_loaded = self.committers.iter().enumerate().min_by_key(|(_, committer)| load(committer));
        least_loaded.map_or(0, |(at, _)| at)
    }

    fn batch(&self, units: Vec<UnitOfWork>, sent: Vec<OutboxId>) -> CommitBatch {
        CommitBatch { owner: self.shared.owner.clone(), joined: self.shared.joined, units, sent }
    }

    pub(super) fn flush_commits(&mut self) {
        for at in 0..self.committers.len() {
            if self.committers[at].busy || self.committers[at].queue.is_empty() || self.store_pause {
                continue;
            }
            if self.should_linger(at) {
                continue;
            }
            let (units, work) = self.committers[at].take(self.shared.batch);
            self.committers[at].busy = true;
            let sent = self.dispatcher.take_confirmed();
            let batch = self.batch(work, sent.clone());
            let (store, sender) = (self.shared.store.clone(), self.sender.clone());
            let span = tracing::debug_span!("commit", endpoint = %self.shared.info.name, units = units.len());
            self.shared.info.runtime.spawn(tracing::Instrument::instrument(
                async move {
                    let reply = store.commit(batch).await;
                    // the engine may have ended meanwhile
                    let _ = sender.send(Event::Committed { committer: at, units, sent, reply });
                },
                span,
            ));
        }
    }

    /// Whether a committer's next batch is to wait: the transport has enough to do with the last one, and larger batches
    /// cost less, here and there. (Nagle's rule for small packets, RFC 896.) With less than a batch in flight nothing waits.
    fn should_linger(&mut self, at: usize) -> bool {
        let few = self.units.len() < self.shared.batch;
        let committer = &mut self.committers[at];
        if few || committer.queue.len() >= self.shared.batch || self.draining || !self.dispatcher.is_busy() {
            committer.linger = None;
            return false;
        }
        let now = self.shared.info.runtime.elapsed();
        match committer.linger {
            Some(until) if until <= now => {
                committer.linger = None;
                false
            }
            Some(_) => true,
            None => {
                committer.linger = Some(now + MAX_LINGER);
                self.later(MAX_LINGER, Event::Lingered);
                true
            }
        }
    }

    pub(super) fn committed(&mut self, at: usize, units: &[UnitId], sent: Vec<OutboxId>, reply: CommitReply) {
        self.committers[at].busy = false;
        if reply.cleaned {
            self.dispatcher.untrack(&sent);
        } else {
            self.dispatcher.restore_confirmed(sent);
        }
        crash::reach("committed");
        super::add(&self.shared.counters.commits, 1);
        // what waits need not wait for the bookkeeping, unless it builds on something that failed
        if self.committers[at].queue.len() >= self.shared.batch / 2 && reply.outcomes.iter().all(Outcome::is_applied) {
            self.flush_commits();
        }
        for (id, outcome) in units.iter().zip(reply.outcomes) {
            self.apply_outcome(*id, outcome);
        }
    }

    pub(super) fn own_transaction_done(&mut self, id: UnitId, reply: CommitReply) {
        crash::reach("committed");
        super::add(&self.shared.counters.commits, 1);
        let outcome = reply.outcomes.into_iter().next();
        let missing = || sagabus_core::Error::new(sagabus_core::ErrorKind::Unknown, "the store did not answer");
        self.apply_outcome(id, outcome.unwrap_or_else(|| Outcome::Failed(missing())));
    }

    fn apply_outcome(&mut self, id: UnitId, outcome: Outcome) {
        let applied = outcome.is_applied();
        if let Some(key) = self.units.get(&id).and_then(|unit| unit.lane.clone())
            && let Some(lane) = self.lanes.get_mut(&key)
            && let Some(at) = lane.pending.iter().position(|other| *other == id)
        {
            lane.pending.remove(at);
            if applied {
                lane.own_sql_committing = false;
                lane.from_cache = false;
            } else {
                self.invalidate_lane(&key);
            }
        }
        match outcome {
            Outcome::Applied { outbox, blocked_by_predecessor: behind } => self.applied(id, outbox, behind),
            Outcome::Duplicate => {
                super::add(&self.shared.counters.duplicates, 1);
                self.expect_duplicates();
                self.complete_unit(id, false);
            }
            Outcome::Stale => self.stale(id),
            Outcome::Failed(error) => {
                tracing::warn!(%error, "commit failed, trying again");
                if error.is_unknown() {
                    // it may have been committed: then all of it comes to the gate for a second time
                    self.expect_duplicates();
                    self.dispatcher.sweep();
                }
                self.reload_and_rerun(id, true);
            }
        }
    }

    /// What the lane's later units were built on never was. Those that wait for the next commit are called back: by then
    /// somebody else may have written the very version that they expect.
    fn invalidate_lane(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.invalidate();
        let at = usize::from(sagabus_core::shard_of(key.key.as_bytes())) % self.committers.len();
        let queue = &mut self.committers[at].queue;
        let mut recalled = Vec::new();
        queue.retain(|(unit, _)| {
            let later = lane.pending.contains(unit);
            recalled.extend(later.then_some(*unit));
            !later
        });
        for id in recalled {
            let Some(lane) = self.lanes.get_mut(key) else { return };
            lane.pending.retain(|other| *other != id);
            if self.draining {
                self.return_to_transport(id);
            } else if let Some(unit) = self.units.get_mut(&id) {
                unit.stage = Stage::Waiting;
                unit.sends.clear();
                lane.enqueue(id);
            }
        }
    }

    fn applied(&mut self, id: UnitId, outbox: Vec<OutboxId>, behind: bool) {
        self.store_failures = 0;
        let Some(unit) = self.units.get_mut(&id) else { return };
        let counters = &self.shared.counters;
        match unit.tally {
            Tally::Handled => super::add(&counters.handled, 1),
            Tally::Deferred => {
                crash::reach("deferred");
                super::add(&counters.deferred, 1);
            }
            Tally::Dead => {
                crash::reach("buried");
                super::add(&counters.dead, 1);
            }
            Tally::Parked => super::add(&counters.parked, 1),
            Tally::Dropped(policy) => counters.dropped(policy),
        }
        let sends = std::mem::take(&mut unit.sends);
        if behind {
            self.dispatcher.sweep();
        } else if !outbox.is_empty() && !sabotage::active("dispatch-before-commit") {
            self.dispatcher.send(outbox.into_iter().zip(sends).collect());
        }
        self.complete_unit(id, false);
    }

    /// The saga has moved on, or the fence is lost.
    fn stale(&mut self, id: UnitId) {
        super::add(&self.shared.counters.stale, 1);
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.stale += 1;
        if unit.fence.is_some() && unit.stale > 3 {
            // another node owns the shard now, and the message with it
            return self.return_to_transport(id);
        }
        self.reload_and_rerun(id, false);
    }

    /// Nothing was committed for it: everything from the load on happens again.
    fn reload_and_rerun(&mut self, id: UnitId, store_failed: bool) {
        if self.draining {
            return self.return_to_transport(id);
        }
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.stage = Stage::Waiting;
        unit.sends.clear();
        let lane = unit.lane.clone();
        if store_failed {
            self.stalled.push(id);
            self.store_failed();
        } else {
            self.begin(id);
        }
        if let Some(key) = lane {
            self.wake_lane(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus_core::{InstanceId, MessageId, RowGate, SagaWrite, TimerChange};
    use uuid::Uuid;

    fn unit(key: &str, gate: Gate, cancels: bool) -> UnitOfWork {
        let mut unit = UnitOfWork::new("order".into(), MessageId(Uuid::nil()), gate);
        let kind: Arc<str> = "shop/order".into();
        let change =
            SagaChange::Update { instance: InstanceId(Uuid::nil()), version: 1, state: "{}".into(), schema: 1 };
        if cancels {
            let (kind, key, id) = (kind.clone(), key.to_owned(), sagabus_core::TimerId(Uuid::nil()));
            unit.timers.push(TimerChange::Cancel { kind, key, id });
        }
        unit.saga = Some(SagaWrite { kind, key: key.into(), change, aliases: Vec::new() });
        unit
    }

    /// The lengths of the batches that these units become.
    fn batches(units: Vec<UnitOfWork>) -> Vec<usize> {
        let mut committer = Committer { queue: (1..).zip(units).collect(), busy: false, linger: None };
        std::iter::from_fn(|| Some(committer.take(100).0.len()).filter(|length| *length > 0)).collect()
    }

    #[test]
    fn a_timeout_is_not_in_one_batch_with_its_cancellation() {
        let timer = || Gate::Row(RowGate { table: RowTable::Timer, id: 1, token: 0 });
        let paid = |key| unit(key, Gate::Inbox, true);
        let late = |key| unit(key, timer(), false);
        assert_eq!(batches(vec![paid("a"), late("a"), paid("b")]), [1, 2], "it finds its row gone in the next one");
        assert_eq!(batches(vec![paid("a"), late("b"), late("a")]), [2, 1]);
        assert_eq!(batches(vec![late("a"), paid("a"), unit("a", Gate::Inbox, false)]), [3]);
    }
}
