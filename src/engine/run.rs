//! Handlers.

use super::{
    Engine, Event, Ready,
    handler_tasks::{HandlerStart, launch},
    unit::{LaneKey, Stage, UnitId},
};
use sagabus_core::{
    Context, Decision, Disposition, Gate, HandlerError, Incoming, Invocation, InvocationContext, InvocationResult,
    ParkedUntil, RowTable, SagaRow, crash,
};
use std::sync::Arc;

impl Engine {
    /// Starts handlers, up to the limit.
    pub(super) fn start_ready(&mut self) {
        while self.running < self.limit() && !self.backlog_full {
            match self.ready.pop_front() {
                None => break,
                Some(Ready::Plain(unit)) => self.start(unit, None),
                Some(Ready::Lane(key)) => self.start_lane(&key),
            }
        }
        launch(&mut self.starts, &self.sender, &self.shared.info.runtime);
    }

    /// How many handlers may run: all, or one at a time while nothing succeeds.
    fn limit(&self) -> usize {
        match (self.failures_in_a_row >= self.shared.policy.slow_down_after, self.slow) {
            (true, true) => 0,
            (true, false) => 1,
            _ => self.shared.concurrency,
        }
    }

    fn start_lane(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.ready = false;
        if !lane.can_run() {
            return self.wake_lane(key);
        }
        let Some(id) = lane.waiting.pop_front() else { return };
        let Some(unit) = self.units.get_mut(&id) else { return self.wake_lane(key) };
        if !lane.pending.is_empty() && (unit.needs_committed_state || self.transactional.contains(&unit.handler)) {
            // its own SQL must see what the units before it commit; the commit wakes the lane
            lane.waiting.push_front(id);
            return;
        }
        let row = lane.state.clone().flatten();
        let Some(route) = unit.route.clone() else { return };
        match route.decide(&unit.message, row.as_ref()) {
            Decision::Run => {
                lane.running = Some(id);
                unit.epoch = lane.epoch;
                self.start(id, row);
            }
            _ if !lane.pending.is_empty() => {
                // no predetermined on a state that may turn out not to be; the commit wakes the lane
                lane.waiting.push_front(id);
            }
            _ if lane.from_cache || lane.loaded_as_of < id => {
                // nor on one that may be old
                lane.reload();
                lane.waiting.push_front(id);
                self.wake_lane(key);
            }
            decision => {
                self.apply_decision(id, decision, key.kind.clone(), key.key.to_string());
                self.wake_lane(key);
            }
        }
    }

    /// What a route decided for a message that its handler does not get.
    pub(super) fn apply_decision(&mut self, id: UnitId, decision: Decision, kind: Arc<str>, key: String) {
        let Some(unit) = self.units.get(&id) else { return };
        let message = unit.message.clone();
        let waited = matches!(unit.gate, Gate::Row(row) if row.table == RowTable::Parked);
        let dead = |reason: &str, detail: Vec<String>| Disposition::DeadLettered {
            message: message.clone(),
            attempts: unit.attempts,
            reason: reason.into(),
            detail,
        };
        let disposition = match decision {
            Decision::Park(_) if waited => dead("saga not found", vec![format!("no saga {kind} with key {key:?}")]),
            Decision::Park(at_most) => Disposition::Parked {
                message: message.clone(),
                attempts: unit.attempts,
                until: ParkedUntil::Saga { kind, key, at_most },
            },
            Decision::DeadLetter(reason) => dead(&reason, vec![format!("saga {kind}, key {key:?}")]),
            Decision::Drop(policy) => Disposition::Dropped { policy },
            Decision::Run => return,
        };
        self.dispose(id, disposition);
    }

    pub(super) fn start(&mut self, id: UnitId, saga: Option<SagaRow>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Some(route) = unit.route.clone() else { return };
        if unit.suspect && !unit.counted {
            return self.count_suspect(id, saga);
        }
        unit.stage = Stage::Running;
        self.running += 1;
        let may_begin = match &unit.lane {
            Some(key) => self.lanes.get(key).is_none_or(|lane| lane.pending.is_empty()),
            None => true,
        };
        let incoming = Incoming { message: unit.message.clone(), attempts: unit.attempts };
        let mut context = Context::new(incoming, self.shared.info.clone(), may_begin);
        if self.shared.at_least_once {
            context = context.with_same_ids(unit.handler.clone());
        }
        let span = tracing::info_span!(
            "handle",
            endpoint = %self.shared.info.name,
            handler = %unit.handler,
            message.id = %unit.message_id,
            message.kind = %unit.message.headers.message_type,
            saga.key = unit.lane.as_ref().map(|lane| &*lane.key),
        );
        let run = Invocation { context, saga, input: unit.input.take() };
        self.starts.push(HandlerStart { unit: id, epoch: unit.epoch, route, run, span });
        if self.failures_in_a_row >= self.shared.policy.slow_down_after {
            self.slow = true;
            self.later(self.shared.policy.slow_down, Event::SlowAgain);
        }
    }

    pub(super) fn ran(&mut self, id: UnitId, epoch: u64, output: Result<Box<InvocationResult>, String>) {
        self.running -= 1;
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some(key) = &unit.lane
            && self.lanes.get(key).is_some_and(|lane| lane.epoch != epoch)
        {
            // what it was built on has turned out not to be so
            let key = key.clone();
            return self.requeue_in_lane(id, &key);
        }
        let failed = output.as_ref().is_ok_and(|output| !output.context.wanted_begin() && output.result.is_err());
        if (failed || output.is_err())
            && let Some(key) = &unit.lane
            && self.lanes.get(key).is_some_and(|lane| !lane.pending.is_empty())
        {
            // no predetermined on a state that may turn out not to be: once more, on what is committed
            let key = key.clone();
            unit.needs_committed_state = true;
            return self.requeue_in_lane(id, &key);
        }
        if (failed || output.is_err())
            && let Some(key) = &unit.lane
            && let Some(lane) = self.lanes.get_mut(key)
            && lane.from_cache
        {
            // nor on one that may be old
            lane.reload();
            let key = key.clone();
            return self.requeue_in_lane(id, &key);
        }
        let output = match output {
            Ok(output) => *output,
            Err(text) => return self.failed(id, HandlerError::new(text)),
        };
        if output.context.wanted_begin() {
            self.transactional.insert(unit.handler.clone());
            return match unit.lane.clone() {
                Some(key) => self.requeue_in_lane(id, &key),
                None => self.begin(id),
            };
        }
        let (mut effects, transaction) = output.context.into_parts();
        if let Err(error) = output.result.and_then(|()| effects.error.take().map_or(Ok(()), Err)) {
            drop(transaction);
            return self.failed(id, error);
        }
        self.failures_in_a_row = 0;
        crash::reach("handled");
        if matches!(unit.gate, Gate::Row(row) if row.table == RowTable::Timer) {
            crash::reach("timer-handled");
        }
        let work = unit.handled(effects, !self.shared.joined && !self.shared.at_least_once);
        if let Some(key) = unit.lane.clone()
            && let Some(lane) = self.lanes.get_mut(&key)
        {
            lane.running = None;
            if let Some(write) = &work.saga {
                lane.advance(write);
            }
            lane.own_sql_committing = transaction.is_some();
            lane.pending.push_back(id);
            self.wake_lane(&key);
        }
        if transaction.is_some() {
            self.transactional.insert(work.handler.clone());
        }
        self.submit(id, work, transaction);
    }

    /// A run that is void: its unit waits again.
    fn requeue_in_lane(&mut self, id: UnitId, key: &LaneKey) {
        if self.draining {
            return self.return_to_transport(id);
        }
        if let Some(unit) = self.units.get_mut(&id) {
            unit.stage = Stage::Waiting;
        }
        if let Some(lane) = self.lanes.get_mut(key) {
            if lane.running == Some(id) {
                lane.running = None;
            }
            lane.enqueue(id);
        }
        self.wake_lane(key);
    }
}
