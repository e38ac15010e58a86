//! The order in which units run: lanes, and the list of what is ready.

use super::{
    handler_tasks::HandlerStart,
    keys::{LaneKey, UnitId},
    lane::Lane,
    saga_cache::SagaCache,
};
use foldhash::{HashMap, HashSet};
use sagabus_core::{SagaLookup, SagaRow};
use std::{collections::VecDeque, sync::Arc};

/// A unit, or the next unit of a lane, that may run.
pub(super) enum Ready {
    Plain(UnitId),
    Lane(LaneKey),
}

/// Lanes and the ready list.
#[derive(Default)]
pub(super) struct Scheduler {
    pub(super) lanes: HashMap<LaneKey, Lane>,
    pub(super) saga_cache: SagaCache,
    /// Whether this is the only node of its endpoint, as far as the lease tells.
    alone: bool,
    pub(super) ready: VecDeque<Ready>,
    pub(super) lanes_to_load: Vec<LaneKey>,
    /// Handlers that are to run, until the end of the step.
    pub(super) starts: Vec<HandlerStart>,
    pub(super) running: usize,
    /// Handlers that use their own SQL: they start only when the units before them of their key are committed.
    pub(super) own_sql_handlers: HashSet<Arc<str>>,
}

impl Scheduler {
    /// Notes whether the node is alone. With other nodes about, cached states are worth nothing.
    pub(super) fn set_alone(&mut self, alone: bool) {
        if std::mem::replace(&mut self.alone, alone) && !alone {
            self.saga_cache.clear();
        }
    }

    /// The lane of a saga, with the cached state if it is new.
    pub(super) fn open_lane(&mut self, key: &LaneKey) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.is_idle()
            && lane.state.is_none()
            && !lane.loading
            && let Some(row) = self.saga_cache.take(key)
        {
            lane.state = Some(Some(row));
            lane.from_cache = true;
        }
    }

    /// Gives a lane a state that was loaded for one of its units. A busy lane knows a newer one.
    pub(super) fn offer_state(&mut self, key: &LaneKey, row: Option<SagaRow>, as_of: UnitId) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if !self.saga_cache.contains(key)
            && lane.state.is_none()
            && lane.running.is_none()
            && lane.pending.is_empty()
            && !lane.loading
        {
            (lane.state, lane.loaded_as_of) = (Some(row), as_of);
        }
    }

    /// Has a lane run or load, whichever is next.
    pub(super) fn wake_lane(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.wants_load() {
            lane.loading = true;
            self.lanes_to_load.push(key.clone());
        } else if lane.can_run() && !lane.ready {
            lane.ready = true;
            self.ready.push_back(Ready::Lane(key.clone()));
        } else if lane.is_idle() && !lane.ready && !lane.loading {
            let lane = self.lanes.remove(key);
            match lane.and_then(|lane| lane.state.flatten()) {
                Some(row) if self.alone && !row.completed => self.saga_cache.put(key.clone(), row),
                _ => drop(self.saga_cache.take(key)),
            }
        }
    }

    /// Wakes the lane of a unit, if it has one.
    pub(super) fn wake(&mut self, key: Option<&LaneKey>) {
        if let Some(key) = key {
            self.wake_lane(key);
        }
    }

    /// Whether a saga's state need not be loaded.
    pub(super) fn has_state(&self, lookup: &SagaLookup) -> bool {
        let SagaLookup::Key { kind, key } = lookup else { return false };
        let key = LaneKey { kind: kind.clone(), key: key.as_str().into() };
        self.saga_cache.contains(&key) || self.lanes.get(&key).is_some_and(|lane| lane.state.is_some())
    }

    /// Lets no lane load any more, when nothing is to start.
    pub(super) fn cancel_loads(&mut self) {
        for key in std::mem::take(&mut self.lanes_to_load) {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.loading = false;
            }
            self.wake_lane(&key);
        }
    }
}
