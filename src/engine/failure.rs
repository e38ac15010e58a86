//! Failures of handlers: counted, retried, deferred or dead-lettered.

use super::{Engine, add, event::Event, keys::UnitId, location::Location, retry_policy::Next};
use sagabus_core::{Disposition, Error, HandlerError};

impl Engine {
    /// Takes in an error or a panic of a handler. The lane's state is as it was; the key waits.
    pub(super) fn handler_failed(&mut self, id: UnitId, error: HandlerError) {
        if is_infrastructure(&error) {
            return self.infrastructure_failed(id, &error);
        }
        let Some(unit) = self.units.get_mut(&id) else { return };
        add(&self.shared.counters.failures, 1);
        self.throttle.failed();
        let text = error.chain().join(": ");
        tracing::warn!(handler = %unit.handler, message.id = %unit.message_id, error = %text, "handler failed");
        if error.is_permanent() {
            unit.attempts.total += 1;
            return self.after_failure(id, &error, true);
        }
        let (handler, message) = (unit.handler.clone(), unit.message_id);
        self.move_unit(id, Location::CountingFailure);
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
        let attempts = &mut unit.attempts;
        let seen = attempts.total;
        attempts.total = match failures {
            Some(failures) => {
                attempts.has_row = true;
                (attempts.before + failures).max(seen + 1)
            }
            None => seen + 1,
        };
        // a suspect is counted before its handler, which so knows of all others
        let knew = attempts.suspect || attempts.total == seen + 1;
        self.after_failure(id, error, knew);
    }

    /// Decides what follows a failure.
    ///
    /// `knew`: whether the handler saw the current number of attempts. Another process, which has died, may have counted
    /// some after this one had read the number. In that case the handler runs once more with the right number before its
    /// message is dead-lettered. (Once: without a store a message and its delayed copy may be in flight together, and
    /// count each other's failures.)
    fn after_failure(&mut self, id: UnitId, error: &HandlerError, knew: bool) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let next = match self.shared.policy.after(unit.attempts.total, error, &self.shared.info.runtime) {
            Next::DeadLetter if !knew && !unit.attempts.dead_letter_postponed => {
                unit.attempts.dead_letter_postponed = true;
                Next::Retry(self.shared.policy.pause)
            }
            next => next,
        };
        match next {
            Next::Retry(_) if self.draining => self.return_to_transport(id),
            Next::Retry(pause) => {
                self.move_unit(id, Location::RetryPause);
                self.send_after(pause, Event::Retry { unit: id });
            }
            Next::Defer(delay) => {
                let disposition = Disposition::Deferred {
                    message: unit.message.clone(),
                    key: unit.order.key.clone(),
                    attempts: unit.attempts.total,
                    delay,
                    reason: error.to_string(),
                };
                self.dispose(id, disposition);
            }
            Next::DeadLetter => {
                let disposition = Disposition::DeadLettered {
                    message: unit.message.clone(),
                    attempts: unit.attempts.total,
                    reason: if error.is_permanent() { "permanent failure" } else { "handler failed" }.into(),
                    detail: error.chain(),
                };
                self.dispose(id, disposition);
            }
        }
    }

    /// Runs a unit again whose pause is over, first in its lane.
    pub(super) fn retry(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(&id).filter(|unit| unit.location == Location::RetryPause) else { return };
        if unit.saga.lane.is_some() {
            self.requeue_in_lane(id);
        } else {
            self.move_unit(id, Location::Ready);
        }
    }

    /// Stalls a unit under whose handler a store or a transport has failed: no attempt, tried again soon.
    pub(super) fn infrastructure_failed(&mut self, id: UnitId, error: &HandlerError) {
        tracing::warn!(%error, "infrastructure failed under a handler, trying again");
        if self.draining {
            return self.return_to_transport(id);
        }
        self.stall(id);
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
