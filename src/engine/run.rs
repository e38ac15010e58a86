//! Handlers.

use super::{
    Engine, Event, Ready,
    group::{Start, launch},
    unit::{Finished, LaneKey, Stage, UnitId},
};
use futures::FutureExt;
use sagabus_core::{
    Context, Decision, Disposition, Gate, HandlerError, Incoming, Invocation, InvocationResult, ParkedUntil, Route,
    RowTable, SagaRow, crash,
};
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

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
        if !lane.pending.is_empty() && (unit.settled || self.transactional.contains(&unit.handler)) {
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
                // no verdict on a state that may turn out not to be; the commit wakes the lane
                lane.waiting.push_front(id);
            }
            _ if lane.remembered || lane.as_of < id => {
                // nor on one that may be old
                lane.reload();
                lane.waiting.push_front(id);
                self.wake_lane(key);
            }
            decision => {
                self.decided(id, decision, key.kind.clone(), key.key.to_string());
                self.wake_lane(key);
            }
        }
    }

    /// What a route decided for a message that its handler does not get.
    pub(super) fn decided(&mut self, id: UnitId, decision: Decision, kind: Arc<str>, key: String) {
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
        if self.shared.storeless {
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
        self.starts.push(Start { unit: id, epoch: unit.epoch, route, run, span });
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
            return self.back_to_lane(id, &key);
        }
        let failed = output.as_ref().is_ok_and(|output| !output.context.wanted_begin() && output.result.is_err());
        if (failed || output.is_err())
            && let Some(key) = &unit.lane
            && self.lanes.get(key).is_some_and(|lane| !lane.pending.is_empty())
        {
            // no verdict on a state that may turn out not to be: once more, on what is committed
            let key = key.clone();
            unit.settled = true;
            return self.back_to_lane(id, &key);
        }
        if (failed || output.is_err())
            && let Some(key) = &unit.lane
            && let Some(lane) = self.lanes.get_mut(key)
            && lane.remembered
        {
            // nor on one that may be old
            lane.reload();
            let key = key.clone();
            return self.back_to_lane(id, &key);
        }
        let output = match output {
            Ok(output) => *output,
            Err(text) => return self.failed(id, HandlerError::new(text)),
        };
        if output.context.wanted_begin() {
            self.transactional.insert(unit.handler.clone());
            return match unit.lane.clone() {
                Some(key) => self.back_to_lane(id, &key),
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
        let work = unit.handled(effects, !self.shared.joined && !self.shared.storeless);
        if let Some(key) = unit.lane.clone()
            && let Some(lane) = self.lanes.get_mut(&key)
        {
            lane.running = None;
            if let Some(write) = &work.saga {
                lane.advance(write);
            }
            lane.exclusive = transaction.is_some();
            lane.pending.push_back(id);
            self.wake_lane(&key);
        }
        if transaction.is_some() {
            self.transactional.insert(work.handler.clone());
        }
        self.submit(Finished { unit: id, work, transaction });
    }

    /// A run that is void: its unit waits again.
    fn back_to_lane(&mut self, id: UnitId, key: &LaneKey) {
        if self.draining {
            return self.give_back(id);
        }
        if let Some(unit) = self.units.get_mut(&id) {
            unit.stage = Stage::Waiting;
        }
        if let Some(lane) = self.lanes.get_mut(key) {
            if lane.running == Some(id) {
                lane.running = None;
            }
            lane.put_back(id);
        }
        self.wake_lane(key);
    }
}

pub(super) async fn handle(route: Arc<dyn Route>, run: Invocation) -> Result<Box<InvocationResult>, String> {
    let panicked = |panic: Box<dyn Any + Send>| format!("the handler panicked: {}", panic_text(&*panic));
    // building the future is the route's code too
    let future = std::panic::catch_unwind(AssertUnwindSafe(|| route.run(run))).map_err(panicked)?;
    AssertUnwindSafe(future).catch_unwind().await.map(Box::new).map_err(panicked)
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}
