//! Commits: from finished units to outcomes.

use super::{
    Engine, add,
    committer::{Committer, Linger, batch_len},
    event::Event,
    keys::{LaneKey, UnitId},
    location::Location,
    unit::Tally,
};
use sagabus_core::{
    CommitBatch, CommitReply, Disposition, Error, ErrorKind, OutboxId, Outcome, Transaction, UnitOfWork, crash,
    sabotage,
};

impl Engine {
    /// Submits a message that no handler handles.
    pub(super) fn dispose(&mut self, id: UnitId, disposition: Disposition) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let work = unit.disposed(disposition);
        let key = unit.saga.lane.clone();
        self.submit(id, work, None);
        self.scheduler.wake(key.as_ref());
    }

    /// Hands a finished unit to its committer, or finishes its own transaction.
    pub(super) fn submit(&mut self, id: UnitId, work: UnitOfWork, transaction: Option<Box<dyn Transaction>>) {
        if sabotage::active("dispatch-before-commit") {
            let early = work.sends.iter().map(|send| (OutboxId(-1), send.clone())).collect();
            self.dispatcher.send(early);
        }
        let Some(transaction) = transaction else {
            let at = self.committer_of(id);
            if let Some(unit) = self.units.get_mut(&id) {
                unit.result.work = Some(work);
            }
            return self.move_unit(id, Location::CommitQueue(at));
        };
        self.move_unit(id, Location::Committing);
        let batch = self.batch(vec![work], Vec::new());
        let sender = self.sender.clone();
        self.shared.info.runtime.spawn(async move {
            let reply = transaction.finish(batch).await;
            // the engine may have ended meanwhile
            let _ = sender.send(Event::OwnTransactionDone { unit: id, reply });
        });
    }

    /// The committer of a unit: that of its saga's shard.
    fn committer_of(&self, id: UnitId) -> usize {
        match self.units.get(&id).and_then(|unit| unit.saga.lane.as_ref()) {
            Some(key) => self.committer_of_lane(key),
            None if self.shared.at_least_once => self.least_loaded(),
            None => 0,
        }
    }

    fn committer_of_lane(&self, key: &LaneKey) -> usize {
        usize::from(sagabus_core::shard_of(key.key.as_bytes())) % self.committers.len()
    }

    /// The committer with the least to do: without a saga it does not matter which.
    fn least_loaded(&self) -> usize {
        let load = |committer: &Committer| (committer.busy, committer.queue.len());
        let least = self.committers.iter().enumerate().min_by_key(|(_, committer)| load(committer));
        least.map_or(0, |(at, _)| at)
    }

    fn batch(&self, units: Vec<UnitOfWork>, sent: Vec<OutboxId>) -> CommitBatch {
        CommitBatch { owner: self.shared.owner.clone(), joined: self.shared.joined, units, sent }
    }

    /// Has each committer that is free commit what has queued up.
    pub(super) fn flush_commits(&mut self) {
        for at in 0..self.committers.len() {
            let committer = &self.committers[at];
            if committer.busy || committer.queue.is_empty() || self.store_health.paused || self.should_linger(at) {
                continue;
            }
            let (units, work) = self.take_batch(at);
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

    /// Takes the next batch of a committer out of its queue.
    fn take_batch(&mut self, at: usize) -> (Vec<UnitId>, Vec<UnitOfWork>) {
        let work_of = |id: &UnitId| self.units.get(id).and_then(|unit| unit.result.work.as_ref());
        let len = batch_len(self.committers[at].queue.iter().filter_map(work_of), self.shared.batch);
        let mut batch = (Vec::with_capacity(len), Vec::with_capacity(len));
        while batch.0.len() < len
            && let Some(id) = self.committers[at].queue.front().copied()
        {
            self.move_unit(id, Location::Committing);
            let work = self.units.get_mut(&id).and_then(|unit| unit.result.work.take());
            batch.extend(work.map(|work| (id, work)));
        }
        batch
    }

    /// Whether a committer's next batch is to wait: the transport has enough to do with the last one, and larger batches
    /// cost less, here and there. (Nagle's rule for small packets, RFC 896.) With less than a batch in flight nothing waits.
    fn should_linger(&mut self, at: usize) -> bool {
        let few = self.units.len() < self.shared.batch;
        let committer = &mut self.committers[at];
        let pays = !few && committer.queue.len() < self.shared.batch && !self.draining && self.dispatcher.is_busy();
        match committer.linger(pays, self.shared.info.runtime.elapsed()) {
            Linger::No => false,
            Linger::GoesOn => true,
            Linger::Begins(pause) => {
                self.send_after(pause, Event::LingerOver);
                true
            }
        }
    }

    /// Takes in the outcomes of a batch.
    pub(super) fn committed(&mut self, at: usize, units: &[UnitId], sent: Vec<OutboxId>, reply: CommitReply) {
        self.committers[at].busy = false;
        if reply.cleaned {
            self.dispatcher.untrack(&sent);
        } else {
            self.dispatcher.restore_confirmed(sent);
        }
        crash::reach("committed");
        add(&self.shared.counters.commits, 1);
        // what waits need not wait for the bookkeeping, unless it builds on something that failed
        if self.committers[at].queue.len() >= self.shared.batch / 2 && reply.outcomes.iter().all(Outcome::is_applied) {
            self.flush_commits();
        }
        for (id, outcome) in units.iter().zip(reply.outcomes) {
            self.apply_outcome(*id, outcome);
        }
    }

    /// Takes in the outcome of a unit with its own transaction.
    pub(super) fn own_transaction_done(&mut self, id: UnitId, reply: CommitReply) {
        crash::reach("committed");
        add(&self.shared.counters.commits, 1);
        let outcome = reply.outcomes.into_iter().next();
        let missing = || Error::new(ErrorKind::Unknown, "the store did not answer");
        self.apply_outcome(id, outcome.unwrap_or_else(|| Outcome::Failed(missing())));
    }

    fn apply_outcome(&mut self, id: UnitId, outcome: Outcome) {
        if let Some(unit) = self.units.get(&id).filter(|unit| unit.leads_lane())
            && let Some(key) = &unit.saga.lane
            && let Some(lane) = self.scheduler.lanes.get_mut(key)
        {
            if outcome.is_applied() {
                lane.own_sql_committing = false;
                lane.from_cache = false;
            } else {
                let key = key.clone();
                self.invalidate_lane(&key);
            }
        }
        match outcome {
            Outcome::Applied { outbox, blocked_by_predecessor } => self.applied(id, outbox, blocked_by_predecessor),
            Outcome::Duplicate => {
                add(&self.shared.counters.duplicates, 1);
                self.loader.expect_duplicates(&self.shared.info.runtime);
                self.complete_unit(id, false);
            }
            Outcome::Stale => self.stale(id),
            Outcome::Failed(error) => {
                tracing::warn!(%error, "commit failed, trying again");
                if error.is_unknown() {
                    // it may have been committed: then all of it comes to the gate for a second time
                    self.loader.expect_duplicates(&self.shared.info.runtime);
                    self.dispatcher.sweep();
                }
                self.reload_and_rerun(id, true);
            }
        }
    }

    /// Recalls the later units of a lane: they were computed on a state that failed to commit. Those in the queue of the
    /// committer run again; by their commit, another node may have written the very version that they expect.
    fn invalidate_lane(&mut self, key: &LaneKey) {
        let at = self.committer_of_lane(key);
        let Some(lane) = self.scheduler.lanes.get_mut(key) else { return };
        lane.invalidate();
        let queued = |id: &UnitId| self.units.get(id).is_some_and(|unit| unit.location == Location::CommitQueue(at));
        let recalled: Vec<UnitId> = lane.pending.iter().copied().filter(queued).collect();
        for id in recalled {
            if self.draining {
                self.return_to_transport(id);
            } else {
                self.move_unit(id, Location::InLane);
                self.forget_result(id);
            }
        }
    }

    fn forget_result(&mut self, id: UnitId) {
        if let Some(unit) = self.units.get_mut(&id) {
            unit.result.work = None;
            unit.result.sends.clear();
        }
    }

    fn applied(&mut self, id: UnitId, outbox: Vec<OutboxId>, blocked_by_predecessor: bool) {
        self.store_health.succeeded();
        let Some(unit) = self.units.get_mut(&id) else { return };
        let counters = &self.shared.counters;
        match unit.result.tally {
            Tally::Handled => add(&counters.handled, 1),
            Tally::Deferred => {
                crash::reach("deferred");
                add(&counters.deferred, 1);
            }
            Tally::DeadLettered => {
                crash::reach("buried");
                add(&counters.dead, 1);
            }
            Tally::Parked => add(&counters.parked, 1),
            Tally::Dropped(policy) => counters.dropped(policy),
        }
        let sends = std::mem::take(&mut unit.result.sends);
        if blocked_by_predecessor {
            self.dispatcher.sweep();
        } else if !outbox.is_empty() && !sabotage::active("dispatch-before-commit") {
            self.dispatcher.send(outbox.into_iter().zip(sends).collect());
        }
        self.complete_unit(id, false);
    }

    /// The saga has moved on, or the fence is lost.
    fn stale(&mut self, id: UnitId) {
        add(&self.shared.counters.stale, 1);
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.guard.stale += 1;
        if unit.guard.fence.is_some() && unit.guard.stale > 3 {
            // another node owns the shard now, and the message with it
            return self.return_to_transport(id);
        }
        self.reload_and_rerun(id, false);
    }

    /// Nothing was committed for a unit: everything from the load on happens again.
    fn reload_and_rerun(&mut self, id: UnitId, store_failed: bool) {
        if self.draining {
            return self.return_to_transport(id);
        }
        self.forget_result(id);
        if store_failed {
            return self.stall(id);
        }
        let key = self.units.get(&id).and_then(|unit| unit.saga.lane.clone());
        self.begin(id);
        self.scheduler.wake(key.as_ref());
    }
}
