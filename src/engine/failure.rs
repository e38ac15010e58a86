//! What follows when a handler fails.

use super::{
    Engine, Event,
    retry_policy::Next,
    unit::{Stage, UnitId},
};
use sagabus_core::{Disposition, Error, HandlerError, SagaRow};

impl Engine {
    /// A handler returned an error or panicked. The lane's state is as it was; the key waits.
    pub(super) fn failed(&mut self, id: UnitId, error: HandlerError) {
        if is_infrastructure(&error) {
            return self.infrastructure(id, &error);
        }
        let Some(unit) = self.units.get_mut(&id) else { return };
        super::add(&self.shared.counters.failures, 1);
        self.failures_in_a_row += 1;
        let text = error.chain().join(": ");
        tracing::warn!(handler = %unit.handler, message.id = %unit.message_id, error = %text, "handler failed");
        if error.is_permanent() {
            unit.attempts += 1;
            return self.after_failure(id, &error, true);
        }
        let (handler, message) = (unit.handler.clone(), unit.message_id);
        let (shared, sender) = (self.shared.clone(), self.sender.clone());
        self.shared.info.runtime.spawn(async move {
            let counted = shared.store.count_attempt(&shared.info.name, &handler, message).await;
            if let Err(error) = &counted {
                tracing::warn!(%error, "counting an attempt failed; it counts in memory only");
            }
            // the engine may have ended meanwhile
            let _ = sender.send(Event::FailureCounted { unit: id, failures: counted.ok(), error });
        });
    }

    pub(super) fn failure_counted(&mut self, id: UnitId, failures: Option<u32>, error: &HandlerError) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let seen = unit.attempts;
        unit.attempts = match failures {
            Some(failures) => {
                unit.counted = true;
                (unit.attempts_before + failures).max(unit.attempts + 1)
            }
            None => unit.attempts + 1,
        };
        // a suspect is counted before its handler, which so knows of all others
        let knew = unit.suspect || unit.attempts == seen + 1;
        self.after_failure(id, error, knew);
    }

    /// `knew`: whether the handler was told of all failures before this one. A process that has died may have counted some
    /// after what this one started from; then the handler runs once more, and is told, before its message is buried. (Once:
    /// without a store a message and its delayed copy may be in flight together, and count each other's failures.)
    fn after_failure(&mut self, id: UnitId, error: &HandlerError, knew: bool) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let next = match self.shared.policy.after(unit.attempts, error, &self.shared.info.runtime) {
            Next::DeadLetter if !knew && !unit.dead_letter_postponed => {
                unit.dead_letter_postponed = true;
                Next::Retry(self.shared.policy.pause)
            }
            next => next,
        };
        match next {
            Next::Retry(_) if self.draining => {
                self.leave_lane(id);
                self.return_to_transport(id);
            }
            Next::Retry(pause) => {
                unit.stage = Stage::Retrying;
                self.later(pause, Event::Retry { unit: id });
            }
            Next::Defer(delay) => {
                let disposition = Disposition::Deferred {
                    message: unit.message.clone(),
                    key: unit.order_key.clone(),
                    attempts: unit.attempts,
                    delay,
                    reason: error.to_string(),
                };
                self.leave_lane(id);
                self.dispose(id, disposition);
            }
            Next::DeadLetter => {
                let disposition = Disposition::DeadLettered {
                    message: unit.message.clone(),
                    attempts: unit.attempts,
                    reason: if error.is_permanent() { "permanent failure" } else { "handler failed" }.into(),
                    detail: error.chain(),
                };
                self.leave_lane(id);
                self.dispose(id, disposition);
            }
        }
    }

    /// The pause is over: the unit runs again, first in its lane.
    pub(super) fn retry(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if unit.stage != Stage::Retrying {
            return;
        }
        unit.stage = Stage::Waiting;
        match unit.lane.clone() {
            Some(key) => {
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.running = None;
                    lane.enqueue(id);
                }
                self.wake_lane(&key);
            }
            None => self.ready.push_back(super::Ready::Plain(id)),
        }
    }

    /// A store or a transport failed under the handler: no attempt, try again soon.
    fn infrastructure(&mut self, id: UnitId, error: &HandlerError) {
        tracing::warn!(%error, "infrastructure failed under a handler, trying again");
        self.leave_lane(id);
        if self.draining {
            return self.return_to_transport(id);
        }
        self.stalled.push(id);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.stage = Stage::Waiting;
        }
        self.store_failed();
    }

    /// Lets the next message of the saga have its turn.
    fn leave_lane(&mut self, id: UnitId) {
        let Some(key) = self.units.get(&id).and_then(|unit| unit.lane.clone()) else { return };
        if let Some(lane) = self.lanes.get_mut(&key)
            && lane.running == Some(id)
        {
            lane.running = None;
        }
        self.wake_lane(&key);
    }

    /// Lets the next message that may have killed a process go its way: one at a time.
    pub(super) fn start_suspect(&mut self) {
        if self.suspect.is_some() || self.store_pause {
            return;
        }
        let Some(id) = self.suspects.pop_front() else { return };
        if self.units.contains_key(&id) {
            self.suspect = Some(id);
            self.begin(id);
        }
    }

    /// Counts the attempt at a suspect before its handler, when everything else is known.
    pub(super) fn count_suspect(&mut self, id: UnitId, saga: Option<SagaRow>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.stage = Stage::Running;
        let (handler, message) = (unit.handler.clone(), unit.message_id);
        let (shared, sender) = (self.shared.clone(), self.sender.clone());
        self.shared.info.runtime.spawn(async move {
            let counted = shared.store.count_attempt(&shared.info.name, &handler, message).await;
            // the engine may have ended meanwhile
            let _ = sender.send(Event::SuspectCounted { unit: id, saga: saga.map(Box::new), deaths: counted.ok() });
        });
    }

    pub(super) fn suspect_counted(&mut self, id: UnitId, saga: Option<SagaRow>, deaths: Option<u32>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let Some(deaths) = deaths else {
            // not counted, not run
            return self.infrastructure(id, &HandlerError::new("counting a suspect failed"));
        };
        unit.counted = true;
        unit.attempts = unit.attempts_before + deaths - 1;
        let most = self.shared.policy.deaths;
        if deaths > most {
            let disposition = Disposition::DeadLettered {
                message: unit.message.clone(),
                attempts: unit.attempts,
                reason: "the process died while handling it".into(),
                detail: vec![format!("it was in flight, alone, at {most} ends of the process")],
            };
            self.leave_lane(id);
            return self.dispose(id, disposition);
        }
        self.start(id, saga);
    }
}

/// Whether the cause is a store's or a transport's failure, which is never an attempt.
fn is_infrastructure(error: &HandlerError) -> bool {
    if error.is_permanent() {
        return false;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.cause());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.is_transient() || error.is_unknown() || error.is_conflict() || error.is_closed();
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        if sagabus_outbox::is_outage(error) {
            return true;
        }
        cause = error.source();
    }
    false
}
