//! Pauses while the store fails.

use super::{Engine, Event, add, keys::UnitId, location::Location};
use sagabus_core::{Backoff, Runtime};
use std::{collections::VecDeque, time::Duration};

/// The pauses before the store is asked again.
const STORE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));

/// The recent failures of the store, and the units that wait for it to come back.
#[derive(Default)]
pub(super) struct StoreHealth {
    failures: u32,
    /// Nothing is asked of the store until the pause is over.
    pub(super) paused: bool,
    pub(super) stalled: VecDeque<UnitId>,
}

impl StoreHealth {
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause before the store is asked again; `None` during one.
    fn failed(&mut self, runtime: &Runtime) -> Option<Duration> {
        if self.paused {
            return None;
        }
        self.paused = true;
        let pause = STORE_BACKOFF.pause(self.failures, runtime);
        self.failures += 1;
        Some(pause)
    }
}

impl Engine {
    /// Lets a unit wait until the store is asked again, because it failed under it.
    pub(super) fn stall(&mut self, id: UnitId) {
        self.move_unit(id, Location::StalledByStore);
        self.store_failed();
        self.scheduler.wake(self.units.get(&id).and_then(|unit| unit.saga.lane.as_ref()));
    }

    /// Counts a failure of the store, and asks nothing of it for a while.
    pub(super) fn store_failed(&mut self) {
        add(&self.shared.counters.infrastructure, 1);
        if let Some(pause) = self.store_health.failed(&self.shared.info.runtime) {
            self.send_after(pause, Event::StorePauseOver);
        }
    }

    pub(super) fn store_pause_over(&mut self) {
        self.store_health.paused = false;
        for unit in self.store_health.stalled.clone() {
            self.begin(unit);
        }
    }
}
