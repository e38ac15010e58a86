//! Handlers: from the ready list to their results.

use super::{
    Engine,
    event::{Event, HandlerRan},
    handler_tasks::{HandlerStart, launch},
    keys::{LaneKey, UnitId},
    location::Location,
    scheduler::Ready,
};
use sagabus_core::{
    Context, Decision, Disposition, Gate, HandlerError, Incoming, Invocation, InvocationContext, ParkedUntil, RowTable,
    SagaRow, crash,
};
use std::sync::Arc;

impl Engine {
    /// Starts handlers, up to the limit.
    pub(super) fn start_ready(&mut self) {
        while self.scheduler.running < self.throttle.limit(&self.shared.policy, self.shared.concurrency) {
            match self.scheduler.ready.front() {
                None => break,
                Some(Ready::Plain(id)) => self.start(*id, None),
                Some(Ready::Lane(_)) => {
                    if let Some(Ready::Lane(key)) = self.scheduler.ready.pop_front() {
                        self.start_lane(&key);
                    }
                }
            }
        }
        launch(&mut self.scheduler.starts, &self.sender, &self.shared.info.runtime);
    }

    fn start_lane(&mut self, key: &LaneKey) {
        let Some(lane) = self.scheduler.lanes.get_mut(key) else { return };
        lane.ready = false;
        let Some(id) = lane.waiting.front().copied().filter(|_| lane.can_run()) else {
            return self.scheduler.wake_lane(key);
        };
        let Some(unit) = self.units.get_mut(&id) else { return };
        let own_sql = || self.scheduler.own_sql_handlers.contains(&unit.handler);
        if !lane.pending.is_empty() && (unit.saga.needs_committed_state || own_sql()) {
            // its own SQL must see what the units before it commit; the commit wakes the lane
            return;
        }
        let row = lane.state.clone().flatten();
        let Some(route) = unit.route.clone() else { return self.return_to_transport(id) };
        match route.decide(&unit.message, row.as_ref()) {
            Decision::Run => {
                unit.saga.epoch = lane.epoch;
                self.start(id, row);
            }
            // no decision on a state that may turn out not to be; the commit wakes the lane
            _ if !lane.pending.is_empty() => {}
            _ if lane.from_cache || lane.loaded_as_of < id => {
                // nor on one that may be old
                lane.reload();
                self.scheduler.wake_lane(key);
            }
            decision => self.apply_decision(id, decision, key.kind.clone(), key.key.to_string()),
        }
    }

    /// Applies a route's decision on a message that its handler does not get.
    pub(super) fn apply_decision(&mut self, id: UnitId, decision: Decision, kind: Arc<str>, key: String) {
        let Some(unit) = self.units.get(&id) else { return };
        let message = unit.message.clone();
        let waited = matches!(unit.guard.gate, Gate::Row(row) if row.table == RowTable::Parked);
        let dead = |reason: &str, detail: Vec<String>| Disposition::DeadLettered {
            message: message.clone(),
            attempts: unit.attempts.total,
            reason: reason.into(),
            detail,
        };
        let disposition = match decision {
            Decision::Park(_) if waited => dead("saga not found", vec![format!("no saga {kind} with key {key:?}")]),
            Decision::Park(at_most) => Disposition::Parked {
                message: message.clone(),
                attempts: unit.attempts.total,
                until: ParkedUntil::Saga { kind, key, at_most },
            },
            Decision::DeadLetter(reason) => dead(&reason, vec![format!("saga {kind}, key {key:?}")]),
            Decision::Drop(policy) => Disposition::Dropped { policy },
            Decision::Run => return,
        };
        self.dispose(id, disposition);
    }

    /// Starts a unit's handler, at the end of the step.
    pub(super) fn start(&mut self, id: UnitId, saga: Option<SagaRow>) {
        let Some(unit) = self.units.get(&id) else { return };
        // a unit without a handler is predetermined, and never comes here
        let Some(route) = unit.route.clone() else { return self.return_to_transport(id) };
        if unit.attempts.suspect && !unit.attempts.has_row {
            return self.count_suspect(id, saga);
        }
        self.move_unit(id, Location::Running);
        let Some(unit) = self.units.get_mut(&id) else { return };
        let lane = unit.saga.lane.as_ref().and_then(|key| self.scheduler.lanes.get(key));
        let may_begin = lane.is_none_or(|lane| lane.pending.is_empty());
        let incoming = Incoming { message: unit.message.clone(), attempts: unit.attempts.total };
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
            saga.key = unit.saga.lane.as_ref().map(|lane| &*lane.key),
        );
        let run = Invocation { context, saga, input: unit.input.take() };
        self.scheduler.starts.push(HandlerStart { unit: id, epoch: unit.saga.epoch, route, run, span });
        if self.throttle.is_slow(&self.shared.policy) {
            self.throttle.pausing = true;
            self.send_after(self.shared.policy.slow_down, Event::SlowPauseOver);
        }
    }

    /// Takes in what a handler has done.
    pub(super) fn handler_ran(&mut self, ran: HandlerRan) {
        let HandlerRan { unit: id, epoch, output } = ran;
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let Some(key) = &unit.saga.lane
            && let Some(lane) = self.scheduler.lanes.get_mut(key)
        {
            let failed = match &output {
                Ok(output) => !output.context.wanted_begin() && output.result.is_err(),
                Err(_) => true,
            };
            // it was built on a state that has turned out not to be so
            let mut void = lane.epoch != epoch;
            if !void && failed && !lane.pending.is_empty() {
                // no decision on a state that may turn out not to be: once more, on what is committed
                unit.saga.needs_committed_state = true;
                void = true;
            } else if !void && failed && lane.from_cache {
                // nor on one that may be old
                lane.reload();
                void = true;
            }
            if void {
                return self.requeue_in_lane(id);
            }
        }
        let output = match output {
            Ok(output) => *output,
            Err(text) => return self.handler_failed(id, HandlerError::new(text)),
        };
        if output.context.wanted_begin() {
            self.scheduler.own_sql_handlers.insert(unit.handler.clone());
            return if unit.saga.lane.is_some() { self.requeue_in_lane(id) } else { self.begin(id) };
        }
        let (mut effects, transaction) = output.context.into_parts();
        if let Err(error) = output.result.and_then(|()| effects.error.take().map_or(Ok(()), Err)) {
            drop(transaction);
            return self.handler_failed(id, error);
        }
        self.throttle.succeeded();
        crash::reach("handled");
        if matches!(unit.guard.gate, Gate::Row(row) if row.table == RowTable::Timer) {
            crash::reach("timer-handled");
        }
        let work = unit.handled(effects, !self.shared.joined && !self.shared.at_least_once);
        let key = unit.saga.lane.clone();
        if transaction.is_some() {
            self.scheduler.own_sql_handlers.insert(work.handler.clone());
        }
        if let Some(lane) = key.as_ref().and_then(|key| self.scheduler.lanes.get_mut(key)) {
            if let Some(write) = &work.saga {
                lane.advance(write);
            }
            lane.own_sql_committing = transaction.is_some();
        }
        self.submit(id, work, transaction);
        self.scheduler.wake(key.as_ref());
    }

    /// Puts a unit whose run is void, or whose retry is due, back to the waiting ones of its lane.
    pub(super) fn requeue_in_lane(&mut self, id: UnitId) {
        if self.draining {
            return self.return_to_transport(id);
        }
        self.move_unit(id, Location::InLane);
        self.scheduler.wake(self.units.get(&id).and_then(|unit| unit.saga.lane.as_ref()));
    }
}
