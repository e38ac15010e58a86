//! The engine: one message's way through an endpoint.
//!
//! One task owns all state and takes [`Event`]s one after another, so there is no lock and no race in here; handlers,
//! loads and commits run as tasks of their own and come back as events. The way of a message:
//!
//! [`admit`]: a delivery becomes one unit per matching route. [`load`]: one round trip reads what the waiting units need.
//! [`run`]: handlers, one after another per saga key ([`lane`]), concurrently otherwise. [`failure`]: retries.
//! [`commit`]: finished units that queued up while the last commit was under way form the next. [`settle`]: deliveries
//! whose units are all committed. A unit is in exactly one place at any time ([`move_unit`]).

mod admit;
mod admit_due;
mod commit;
mod committer;
mod dispatch;
mod due_reader;
mod event;
mod failure;
mod handler_tasks;
mod intake;
mod keys;
mod lane;
mod load;
mod location;
mod move_unit;
mod receive_loop;
mod relay;
mod retry_policy;
mod route_table;
mod run;
mod saga_cache;
mod scheduler;
mod settle;
mod shared;
mod stats;
mod store_health;
mod suspects;
mod throttle;
mod unit;

pub use retry_policy::Recoverability;
pub use stats::Stats;

pub(crate) use dispatch::{Dispatcher, dispatcher};
pub(crate) use due_reader::due_reader;
pub(crate) use event::Event;
pub(crate) use receive_loop::receive_loop;
pub(crate) use relay::relay;
pub(crate) use route_table::RouteTable;
pub(crate) use settle::settler;
pub(crate) use shared::EndpointContext;
pub(crate) use stats::{Counters, add};

use committer::Committer;
use foldhash::HashMap;
use intake::{DeliverySource, InFlight, Intake};
use keys::UnitId;
use load::Loader;
use sagabus_core::{RowGate, Settle, Settlement, crash, sabotage};
use scheduler::Scheduler;
use settle::Settlements;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use store_health::StoreHealth;
use suspects::Suspects;
use throttle::Throttle;
use tokio::sync::mpsc;
use unit::Unit;

/// The owner of everything in flight, in parts. A part belongs to the file of its methods.
pub(crate) struct Engine {
    shared: Arc<EndpointContext>,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    /// Everything in flight. [`Engine::move_unit`] says where each of them is.
    units: HashMap<UnitId, Box<Unit>>,
    intake: Intake,
    scheduler: Scheduler,
    loader: Loader,
    committers: Vec<Committer>,
    suspects: Suspects,
    store_health: StoreHealth,
    throttle: Throttle,
    settlements: Settlements,
    dispatcher: Dispatcher,
    draining: bool,
}

impl Engine {
    pub(crate) fn new(
        shared: Arc<EndpointContext>,
        channel: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
        settle: mpsc::UnboundedSender<Vec<Settlement>>,
        due_done: mpsc::UnboundedSender<Vec<RowGate>>,
        dispatcher: Dispatcher,
    ) -> Self {
        let committers = (0..shared.store.committers().max(1)).map(|_| Committer::default()).collect();
        Self {
            shared,
            events: channel.1,
            sender: channel.0,
            units: HashMap::default(),
            intake: Intake::default(),
            scheduler: Scheduler::default(),
            loader: Loader::default(),
            committers,
            suspects: Suspects::default(),
            store_health: StoreHealth::default(),
            throttle: Throttle::default(),
            settlements: Settlements::new(settle, due_done),
            dispatcher,
            draining: false,
        }
    }

    /// Runs until it was told to stop and nothing is in flight.
    pub(crate) async fn run(mut self) {
        let mut events = Vec::with_capacity(512);
        loop {
            if self.draining && self.units.is_empty() && self.committers.iter().all(Committer::is_idle) {
                break;
            }
            if self.events.recv_many(&mut events, 512).await == 0 {
                break;
            }
            // a commit's successor waits for its answer, everything else for that successor
            let commits: Vec<Event> = events.extract_if(.., |event| matches!(event, Event::Committed { .. })).collect();
            for event in commits.into_iter().chain(events.drain(..)) {
                self.on(event);
            }
            self.step();
        }
        self.settlements.flush();
    }

    /// Starts whatever can start now.
    fn step(&mut self) {
        self.scheduler.set_alone(self.shared.keeper.view().members <= 1);
        self.start_suspect();
        self.start_ready();
        // after it: a lane that was ready may find that it has to be loaded again, and no event may follow
        self.flush_load();
        self.flush_commits();
        self.settlements.flush();
        self.shared.counters.in_flight.store(self.units.len() as u64, Ordering::Relaxed);
        #[cfg(all(debug_assertions, feature = "testing"))]
        if self.units.len() <= MAX_CHECKED_UNITS {
            self.check_locations();
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Deliveries(deliveries) => deliveries.into_iter().for_each(|d| self.admit(d)),
            Event::Due(rows) => rows.into_iter().for_each(|row| self.admit_due(row)),
            Event::Loaded(reply) => self.loaded(reply),
            Event::HandlersRan(all) => all.into_iter().for_each(|ran| self.handler_ran(ran)),
            Event::FailureCounted { unit, failures, error } => self.failure_counted(unit, failures, &error),
            Event::SuspectCounted { unit, saga, deaths } => self.suspect_counted(unit, saga.map(|row| *row), deaths),
            Event::Retry { unit } => self.retry(unit),
            Event::Committed { committer, units, sent, reply } => self.committed(committer, &units, sent, reply),
            Event::OwnTransactionDone { unit, reply } => self.own_transaction_done(unit, reply),
            Event::StorePauseOver => self.store_pause_over(),
            Event::SlowPauseOver => self.throttle.pausing = false,
            // what may be committed now is seen at the end of the step
            Event::Dispatched | Event::LingerOver => {}
            Event::Backlog(full) => self.throttle.backlog_full = full,
            Event::Stop => self.stop(),
        }
    }

    /// Sends an event to itself after a pause.
    fn send_after(&self, pause: Duration, event: Event) {
        let (sender, runtime) = (self.sender.clone(), self.shared.info.runtime.clone());
        self.shared.info.runtime.spawn(async move {
            runtime.sleep(pause).await;
            // the engine may have ended meanwhile
            let _ = sender.send(event);
        });
    }

    /// The planted bug: everything in flight counts as done.
    fn drop_work(&mut self) {
        let done = |delivery: &InFlight| match delivery.source {
            DeliverySource::Transport(token) => Some(Settlement { token, settle: Settle::Done }),
            DeliverySource::Due(_) => None,
        };
        for settlement in self.intake.deliveries.values().filter_map(done) {
            self.settlements.push(settlement);
        }
        self.units.clear();
        self.scheduler = Scheduler::default();
        self.loader = Loader::default();
        self.suspects = Suspects::default();
        self.store_health = StoreHealth::default();
        self.committers.iter_mut().for_each(|committer| *committer = Committer::default());
    }

    /// Hands back everything that has not started; the rest runs to its end.
    fn stop(&mut self) {
        self.draining = true;
        crash::reach("draining");
        if sabotage::active("stop-drops-work") {
            return self.drop_work();
        }
        for delivery in self.intake.drain_orders() {
            self.settlements.push(settle::returned(delivery.token));
        }
        let waiting = self.units.iter().filter(|(_, unit)| !unit.location.is_started());
        let mut waiting: Vec<UnitId> = waiting.map(|(id, _)| *id).collect();
        // in the order of arrival, so that a seed repeats itself
        waiting.sort_unstable();
        for unit in waiting {
            self.return_to_transport(unit);
        }
        self.scheduler.cancel_loads();
    }
}

/// The most units in flight at which debug builds check where each of them is, after each step.
#[cfg(all(debug_assertions, feature = "testing"))]
const MAX_CHECKED_UNITS: usize = 256;
