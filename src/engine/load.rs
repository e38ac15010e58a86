//! Loads: everything that the waiting units need to know, in one round trip.

use super::{
    Engine, add,
    event::Event,
    keys::{LaneKey, UnitId},
    location::Location,
    scheduler::Scheduler,
    unit::Unit,
};
use sagabus_core::{
    Decision, Disposition, Gate, LoadReply, LoadRequest, ParkedUntil, Result, Runtime, SagaLookup, SagaRow, crash,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Most units in one load.
const MAX_UNITS_PER_LOAD: usize = 500;

/// For so long after a duplicate others are expected.
const PROBE_AFTER_DUPLICATE: Duration = Duration::from_secs(10);

/// Units that wait for a load, and the load under way.
#[derive(Default)]
pub(super) struct Loader {
    pub(super) waiting: VecDeque<UnitId>,
    under_way: Option<PendingLoad>,
    /// Until then every message is looked up in the inbox before its handler runs.
    probe_until: Duration,
}

/// The owners of the entries of a load.
#[derive(Default)]
struct PendingLoad {
    units: Vec<LoadUnit>,
    lanes: Vec<(LaneKey, usize)>,
    /// The last unit that had arrived when it was sent.
    as_of: UnitId,
}

/// A unit in a load, and the indices of its entries.
struct LoadUnit {
    unit: UnitId,
    probe: Option<usize>,
    saga: Option<usize>,
    blocked_key: Option<usize>,
}

impl Loader {
    /// Whether a load is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// The units in the load under way that have not gone meanwhile.
    #[cfg(all(debug_assertions, feature = "testing"))]
    pub(super) fn loading<'a>(&'a self, is_here: impl Fn(UnitId) -> bool + 'a) -> impl Iterator<Item = UnitId> + 'a {
        let units = self.under_way.iter().flat_map(|load| &load.units);
        units.map(|entry| entry.unit).filter(move |unit| is_here(*unit))
    }

    /// After a duplicate, for a while all messages are looked up in the inbox before their handlers run.
    pub(super) fn expect_duplicates(&mut self, runtime: &Runtime) {
        self.probe_until = runtime.elapsed() + PROBE_AFTER_DUPLICATE;
    }

    /// Whether a message is to be looked up in the inbox. The gate decides; this only saves running a duplicate's handler.
    pub(super) fn probes(&self, unit: &Unit, runtime: &Runtime) -> bool {
        let is_new =
            unit.message.headers.first_attempt && !unit.attempts.suspect && runtime.elapsed() >= self.probe_until;
        unit.guard.gate == Gate::Inbox && !is_new
    }
}

impl PendingLoad {
    /// Adds the state of a lane to a request.
    fn add_lane(&mut self, request: &mut LoadRequest, key: LaneKey) {
        self.lanes.push((key.clone(), request.sagas.len()));
        request.sagas.push(SagaLookup::Key { kind: key.kind, key: key.key.to_string() });
    }

    /// Adds everything that a unit needs to a request.
    fn add_unit(&mut self, request: &mut LoadRequest, id: UnitId, unit: &Unit, scheduler: &Scheduler) {
        let mut entry = LoadUnit { unit: id, probe: None, saga: None, blocked_key: None };
        if unit.guard.gate == Gate::Inbox {
            entry.probe = Some(request.probes.len());
            request.probes.push((unit.handler.clone(), unit.message_id));
        }
        if let Some(lookup) = unit.saga.lookup.as_ref().filter(|lookup| !scheduler.has_state(lookup)) {
            entry.saga = Some(request.sagas.len());
            request.sagas.push(match lookup {
                // by its key: a later instance must be seen as what it is
                SagaLookup::Instance(at) => SagaLookup::Key { kind: at.kind.as_str().into(), key: at.key.clone() },
                other => other.clone(),
            });
        }
        if let (true, Some(key)) = (unit.order.waits_for_key, &unit.order.key) {
            entry.blocked_key = Some(request.blocked_keys.len());
            request.blocked_keys.push((unit.handler.clone(), key.clone()));
        }
        self.units.push(entry);
    }
}

impl Engine {
    /// Queues a unit behind the others of its saga, and has the saga loaded if need be.
    pub(super) fn enter_lane(&mut self, id: UnitId, key: LaneKey) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.saga.lane = Some(key.clone());
        self.scheduler.open_lane(&key);
        self.move_unit(id, Location::InLane);
        self.scheduler.wake_lane(&key);
    }

    /// Sends one load for everything that waits, unless one is under way.
    pub(super) fn flush_load(&mut self) {
        let none = self.loader.waiting.is_empty() && self.scheduler.lanes_to_load.is_empty();
        if none || self.loader.is_busy() || self.store_health.paused {
            return;
        }
        let mut request = LoadRequest { endpoint: self.shared.info.name.clone(), ..LoadRequest::default() };
        let mut pending = PendingLoad { as_of: self.intake.last_id(), ..PendingLoad::default() };
        let lanes = self.scheduler.lanes_to_load.len().min(MAX_UNITS_PER_LOAD);
        for key in self.scheduler.lanes_to_load.drain(..lanes) {
            pending.add_lane(&mut request, key);
        }
        while pending.units.len() < MAX_UNITS_PER_LOAD
            && let Some(id) = self.loader.waiting.front().copied()
        {
            self.move_unit(id, Location::Loading);
            if let Some(unit) = self.units.get(&id) {
                pending.add_unit(&mut request, id, unit, &self.scheduler);
            }
        }
        self.loader.under_way = Some(pending);
        let (store, sender) = (self.shared.store.clone(), self.sender.clone());
        self.shared.info.runtime.spawn(async move {
            let reply = store.load(request).await;
            // the engine may have ended meanwhile
            let _ = sender.send(Event::Loaded(reply));
        });
    }

    /// Takes in what a load has found.
    pub(super) fn loaded(&mut self, reply: Result<LoadReply>) {
        let Some(pending) = self.loader.under_way.take() else { return };
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.load_failed(pending, &error),
        };
        self.store_health.succeeded();
        crash::reach("loaded");
        for (key, at) in pending.lanes {
            let row = reply.sagas.get_mut(at).and_then(Option::take);
            if let Some(lane) = self.scheduler.lanes.get_mut(&key) {
                lane.loading = false;
                if lane.state.is_none() {
                    (lane.state, lane.loaded_as_of) = (Some(row), pending.as_of);
                }
                self.scheduler.wake_lane(&key);
            }
        }
        for entry in pending.units {
            let row = entry.saga.and_then(|at| reply.sagas.get_mut(at).and_then(Option::take));
            if entry.probe.is_some_and(|at| reply.probes.get(at).copied().unwrap_or(false)) {
                add(&self.shared.counters.duplicates, 1);
                self.loader.expect_duplicates(&self.shared.info.runtime);
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
        if let (true, Some(key)) = (blocked, unit.order.key.clone()) {
            let disposition = Disposition::Parked {
                message: unit.message.clone(),
                attempts: unit.attempts.total,
                until: ParkedUntil::KeyUnblocked { key },
            };
            return self.dispose(id, disposition);
        }
        let key = match unit.saga.lookup.clone() {
            None => return self.move_unit(id, Location::Ready),
            Some(SagaLookup::Key { kind, key }) => LaneKey { kind, key: key.into() },
            Some(SagaLookup::Instance(at)) => LaneKey { kind: at.kind.as_str().into(), key: at.key.into() },
            Some(SagaLookup::Alias { kind, alias, value }) => match &row {
                Some(row) => LaneKey { kind: row.kind.clone(), key: row.key.as_str().into() },
                None => return self.no_such_alias(id, kind, &alias, &value),
            },
        };
        if let Some(as_of) = asked {
            self.scheduler.offer_state(&key, row, as_of);
        }
        self.enter_lane(id, key);
    }

    /// No saga has this alias: the route's policy for missing sagas decides.
    fn no_such_alias(&mut self, id: UnitId, kind: Arc<str>, alias: &str, value: &str) {
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
            if let Some(lane) = self.scheduler.lanes.get_mut(&key) {
                lane.loading = true;
                self.scheduler.lanes_to_load.push(key);
            }
        }
        for entry in pending.units {
            self.move_unit(entry.unit, Location::WaitingForLoad);
        }
        self.store_failed();
    }
}
