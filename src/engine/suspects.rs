//! Messages that may have killed a process: they run one at a time, counted before the handler.

use super::{Engine, Event, keys::UnitId, location::Location};
use sagabus_core::{Disposition, HandlerError, SagaRow};
use std::collections::VecDeque;

/// The queue of suspects, and the one on its way.
#[derive(Default)]
pub(super) struct Suspects {
    pub(super) queue: VecDeque<UnitId>,
    pub(super) current: Option<UnitId>,
}

impl Engine {
    /// Lets the next suspect go its way.
    pub(super) fn start_suspect(&mut self) {
        if self.suspects.current.is_some() || self.store_health.paused {
            return;
        }
        let Some(id) = self.suspects.queue.front().copied() else { return };
        self.suspects.current = Some(id);
        self.begin(id);
    }

    /// Counts the attempt at a suspect before its handler, when everything else is known.
    pub(super) fn count_suspect(&mut self, id: UnitId, saga: Option<SagaRow>) {
        self.move_unit(id, Location::CountingSuspect);
        let Some(unit) = self.units.get(&id) else { return };
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
            return self.infrastructure_failed(id, &HandlerError::new("counting a suspect failed"));
        };
        unit.attempts.has_row = true;
        unit.attempts.total = unit.attempts.before + deaths - 1;
        let most = self.shared.policy.deaths;
        if deaths > most {
            let disposition = Disposition::DeadLettered {
                message: unit.message.clone(),
                attempts: unit.attempts.total,
                reason: "the process died while handling it".into(),
                detail: vec![format!("it was in flight, alone, at {most} ends of the process")],
            };
            return self.dispose(id, disposition);
        }
        self.start(id, saga);
    }
}
