//! Loads: what the waiting units need to know, in one round trip.

use super::{
    Engine, Event, Ready,
    lane::Lane,
    unit::{LaneKey, UnitId},
};
use sagabus_core::{
    Decision, Disposition, Gate, LoadReply, LoadRequest, ParkedUntil, Result, SagaLookup, SagaRow, crash,
};

/// Most units in one load.
const MAX_UNITS_PER_LOAD: usize = 500;

/// Which entry of a load belongs to whom.
#[derive(Default)]
pub(super) struct PendingLoad {
    units: Vec<LoadUnit>,
    lanes: Vec<(LaneKey, usize)>,
    /// The last unit that had arrived when it was sent.
    as_of: UnitId,
}

struct LoadUnit {
    unit: UnitId,
    probe: Option<usize>,
    saga: Option<usize>,
    blocked_key: Option<usize>,
}

impl Engine {
    /// Queues a unit behind the others of its saga, and has the saga loaded if need be.
    pub(super) fn enter_lane(&mut self, id: UnitId, key: LaneKey) {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.is_idle()
            && lane.state.is_none()
            && !lane.loading
            && let Some(row) = self.saga_cache.take(&key)
        {
            lane.state = Some(Some(row));
            lane.from_cache = true;
        }
        lane.enqueue(id);
        self.wake_lane(&key);
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

    /// Whether a saga's state need not be loaded.
    fn knows(&self, lookup: &SagaLookup) -> bool {
        let SagaLookup::Key { kind, key } = lookup else { return false };
        let key = LaneKey { kind: kind.clone(), key: key.as_str().into() };
        self.saga_cache.contains(&key) || self.lanes.get(&key).is_some_and(|lane| lane.state.is_some())
    }

    /// Sends one load for everything that waits, unless one is under way.
    pub(super) fn flush_load(&mut self) {
        if self.loading.is_some() || self.store_pause || (self.to_load.is_empty() && self.lanes_to_load.is_empty()) {
            return;
        }
        let mut request = LoadRequest { endpoint: self.shared.info.name.clone(), ..LoadRequest::default() };
        let mut pending = PendingLoad { as_of: self.next, ..PendingLoad::default() };
        let lanes = self.lanes_to_load.len().min(MAX_UNITS_PER_LOAD);
        for key in self.lanes_to_load.drain(..lanes) {
            pending.lanes.push((key.clone(), request.sagas.len()));
            request.sagas.push(SagaLookup::Key { kind: key.kind, key: key.key.to_string() });
        }
        let units = self.to_load.len().min(MAX_UNITS_PER_LOAD);
        let units: Vec<UnitId> = self.to_load.drain(..units).collect();
        for id in units {
            let Some(unit) = self.units.get(&id) else { continue };
            let mut entry = LoadUnit { unit: id, probe: None, saga: None, blocked_key: None };
            if unit.gate == Gate::Inbox {
                entry.probe = Some(request.probes.len());
                request.probes.push((unit.handler.clone(), unit.message_id));
            }
            if let Some(lookup) = unit.lookup.as_ref().filter(|lookup| !self.knows(lookup)) {
                entry.saga = Some(request.sagas.len());
                request.sagas.push(match lookup {
                    // by its key: a later life must be seen as what it is
                    SagaLookup::Instance(at) => SagaLookup::Key { kind: at.kind.as_str().into(), key: at.key.clone() },
                    other => other.clone(),
                });
            }
            if let (true, Some(key)) = (unit.waits_for_key, &unit.order_key) {
                entry.blocked_key = Some(request.blocked_keys.len());
                request.blocked_keys.push((unit.handler.clone(), key.clone()));
            }
            pending.units.push(entry);
        }
        self.loading = Some(pending);
        let (store, sender) = (self.shared.store.clone(), self.sender.clone());
        self.shared.info.runtime.spawn(async move {
            let reply = store.load(request).await;
            // the engine may have ended meanwhile
            let _ = sender.send(Event::Loaded(reply));
        });
    }

    pub(super) fn loaded(&mut self, reply: Result<LoadReply>) {
        let Some(pending) = self.loading.take() else { return };
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.load_failed(pending, &error),
        };
        self.store_failures = 0;
        crash::reach("loaded");
        for (key, at) in pending.lanes {
            let row = reply.sagas.get_mut(at).and_then(Option::take);
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.loading = false;
                if lane.state.is_none() {
                    (lane.state, lane.loaded_as_of) = (Some(row), pending.as_of);
                }
                self.wake_lane(&key);
            }
        }
        for entry in pending.units {
            let row = entry.saga.and_then(|at| reply.sagas.get_mut(at).and_then(Option::take));
            if entry.probe.is_some_and(|at| reply.probes.get(at).copied().unwrap_or(false)) {
                super::add(&self.shared.counters.duplicates, 1);
                self.expect_duplicates();
                self.complete_unit(entry.unit, true);
                continue;
            }
            let blocked = entry.blocked_key.is_some_and(|at| reply.blocked_keys.get(at).copied().unwrap_or(false));
            self.unit_loaded(entry.unit, entry.saga.is_some().then_some(pending.as_of), row, blocked);
        }
    }

    /// `asked`: whether its saga was asked for, and as of when.
    fn unit_loaded(&mut self, id: UnitId, asked: Option<UnitId>, row: Option<SagaRow>, blocked: bool) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if let (true, Some(key)) = (blocked, unit.order_key.clone()) {
            let disposition = Disposition::Parked {
                message: unit.message.clone(),
                attempts: unit.attempts,
                until: ParkedUntil::KeyUnblocked { key },
            };
            return self.dispose(id, disposition);
        }
        let key = match unit.lookup.clone() {
            None => return self.ready.push_back(Ready::Plain(id)),
            Some(SagaLookup::Key { kind, key }) => LaneKey { kind, key: key.into() },
            Some(SagaLookup::Instance(at)) => LaneKey { kind: at.kind.as_str().into(), key: at.key.into() },
            Some(SagaLookup::Alias { kind, alias, value }) => match &row {
                Some(row) => LaneKey { kind: row.kind.clone(), key: row.key.as_str().into() },
                None => return self.no_such_alias(id, kind, &alias, &value),
            },
        };
        unit.lane = Some(key.clone());
        let lane: &mut Lane = self.lanes.entry(key.clone()).or_default();
        // what a busy lane knows is newer than what was read meanwhile
        if let Some(as_of) = asked
            && !self.saga_cache.contains(&key)
            && lane.state.is_none()
            && lane.running.is_none()
            && lane.pending.is_empty()
            && !lane.loading
        {
            (lane.state, lane.loaded_as_of) = (Some(row), as_of);
        }
        self.enter_lane(id, key);
    }

    /// No saga has this alias: the route's policy for missing sagas decides.
    fn no_such_alias(&mut self, id: UnitId, kind: std::sync::Arc<str>, alias: &str, value: &str) {
        let Some(unit) = self.units.get(&id) else { return };
        let Some(route) = unit.route.clone() else { return };
        let decision = match route.decide(&unit.message, None) {
            // an alias never starts a saga
            Decision::Run => Decision::DeadLetter(format!("no saga {kind} with {alias} {value:?}")),
            other => other,
        };
        let parked_as = sagabus_core::alias_key(alias, value);
        self.apply_decision(id, decision, kind, parked_as);
    }

    fn load_failed(&mut self, pending: PendingLoad, error: &sagabus_core::Error) {
        tracing::warn!(%error, units = pending.units.len(), "load failed, trying again");
        for (key, _) in pending.lanes {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.loading = true;
                self.lanes_to_load.push(key);
            }
        }
        self.to_load.extend(pending.units.into_iter().map(|entry| entry.unit));
        self.store_failed();
    }

    /// Pauses before the store is asked again: 10 ms, doubled up to 2 s.
    pub(super) fn store_failed(&mut self) {
        super::add(&self.shared.counters.infrastructure, 1);
        if self.store_pause {
            return;
        }
        self.store_pause = true;
        let millis = 10u64 << self.store_failures.min(8);
        self.store_failures += 1;
        let pause = std::time::Duration::from_millis(millis.min(2000));
        let pause = pause / 2 + self.shared.info.runtime.jitter(pause / 2);
        self.later(pause, Event::StoreAgain);
    }

    pub(super) fn store_again(&mut self) {
        self.store_pause = false;
        for unit in std::mem::take(&mut self.stalled) {
            self.begin(unit);
        }
    }
}
