//! The engine: one message's way through an endpoint.
//!
//! One task owns all state and takes [`Event`]s one after another, so there is no lock and no race in here; handlers,
//! loads and commits run as tasks of their own and come back as events. The way of a message:
//!
//! [`admit`]: a delivery becomes one unit per matching route. [`load`]: what the waiting units need is read in one round
//! trip. [`run`]: handlers, one after another per saga key ([`lane`]), concurrently otherwise. [`failure`]: retries.
//! [`commit`]: finished units that queued up while the last commit was under way form the next. [`settle`]: deliveries
//! whose units are all committed.

mod admit;
mod commit;
mod dispatch;
mod due_reader;
mod event;
mod failure;
mod handler_tasks;
mod lane;
mod load;
mod receive_loop;
mod relay;
mod retry_policy;
mod route_table;
mod run;
mod saga_cache;
mod settle;
mod shared;
mod stats;
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

use commit::Committer;
use foldhash::{HashMap, HashSet};
use lane::Lane;
use load::PendingLoad;
use saga_cache::SagaCache;
use sagabus_core::{Delivery, RowGate, Settlement, Token, crash, sabotage};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;
use unit::{GateKey, LaneKey, Unit, UnitId};

/// After a duplicate, for so long others are expected.
const PROBE_AFTER_DUPLICATE: Duration = Duration::from_secs(10);

/// Where a delivery came from.
#[derive(Clone, Copy, Debug)]
enum DeliverySource {
    Transport(Token),
    Due(RowGate),
}

/// A delivery whose units are not all through.
struct InFlight {
    source: DeliverySource,
    remaining: usize,
    /// Its queue row is the gate of its one unit: the commit removes it.
    row_is_gate: bool,
    /// A unit of it was handed back.
    returned: bool,
    order_key: Option<String>,
}

/// What may run.
enum Ready {
    Plain(UnitId),
    Lane(LaneKey),
}

pub(crate) struct Engine {
    shared: Arc<EndpointContext>,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    next: u64,
    units: HashMap<UnitId, Box<Unit>>,
    deliveries: HashMap<u64, InFlight>,
    gates: HashMap<GateKey, UnitId>,
    lanes: HashMap<LaneKey, Lane>,
    /// Ordered endpoints: deliveries that wait for the one before them of their key.
    orders: HashMap<String, VecDeque<Delivery>>,
    saga_cache: SagaCache,
    /// Whether this is the only node of its endpoint, as far as the lease tells.
    alone: bool,
    ready: VecDeque<Ready>,
    /// Handlers that are to run, until the end of the step.
    starts: Vec<handler_tasks::HandlerStart>,
    to_load: Vec<UnitId>,
    lanes_to_load: Vec<LaneKey>,
    loading: Option<PendingLoad>,
    committers: Vec<Committer>,
    suspects: VecDeque<UnitId>,
    suspect: Option<UnitId>,
    /// Units that wait for the store to come back.
    stalled: Vec<UnitId>,
    store_failures: u32,
    store_pause: bool,
    /// Handlers that use their own SQL: they start only when the units before them of their key are committed.
    transactional: HashSet<Arc<str>>,
    running: usize,
    failures_in_a_row: u32,
    slow: bool,
    /// Until when every message is looked up in the inbox before its handler runs.
    probe_until: Duration,
    backlog_full: bool,
    draining: bool,
    settlements: Vec<Settlement>,
    settle: mpsc::UnboundedSender<Vec<Settlement>>,
    due_done: mpsc::UnboundedSender<Vec<RowGate>>,
    due_settled: Vec<RowGate>,
    dispatcher: Dispatcher,
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
            next: 0,
            units: HashMap::default(),
            deliveries: HashMap::default(),
            gates: HashMap::default(),
            lanes: HashMap::default(),
            orders: HashMap::default(),
            saga_cache: SagaCache::default(),
            alone: false,
            ready: VecDeque::new(),
            starts: Vec::new(),
            to_load: Vec::new(),
            lanes_to_load: Vec::new(),
            loading: None,
            committers,
            suspects: VecDeque::new(),
            suspect: None,
            stalled: Vec::new(),
            store_failures: 0,
            store_pause: false,
            transactional: HashSet::default(),
            running: 0,
            failures_in_a_row: 0,
            slow: false,
            probe_until: Duration::ZERO,
            backlog_full: false,
            draining: false,
            settlements: Vec::new(),
            settle,
            due_done,
            due_settled: Vec::new(),
            dispatcher,
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
        self.flush_settlements();
    }

    /// Starts whatever can start now.
    fn step(&mut self) {
        let alone = self.shared.keeper.view().members <= 1;
        if std::mem::replace(&mut self.alone, alone) && !alone {
            self.saga_cache.clear();
        }
        self.start_suspect();
        self.start_ready();
        // after it: a lane that gets its turn may find that it has to be loaded again, and no event may follow
        self.flush_load();
        self.flush_commits();
        self.flush_settlements();
        self.shared.counters.in_flight.store(self.units.len() as u64, Ordering::Relaxed);
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Deliveries(deliveries) => deliveries.into_iter().for_each(|d| self.admit(d)),
            Event::Due(rows) => rows.into_iter().for_each(|row| self.admit_due(row)),
            Event::Loaded(reply) => self.loaded(reply),
            Event::HandlersRan(all) => all.into_iter().for_each(|ran| self.ran(ran.unit, ran.epoch, ran.output)),
            Event::FailureCounted { unit, failures, error } => self.failure_counted(unit, failures, &error),
            Event::SuspectCounted { unit, saga, deaths } => self.suspect_counted(unit, saga.map(|row| *row), deaths),
            Event::Retry { unit } => self.retry(unit),
            Event::Committed { committer, units, sent, reply } => self.committed(committer, &units, sent, reply),
            Event::OwnTransactionDone { unit, reply } => self.own_transaction_done(unit, reply),
            Event::StoreAgain => self.store_again(),
            Event::SlowAgain => self.slow = false,
            // what may be committed now is seen at the end of the step
            Event::Dispatched | Event::Lingered => {}
            Event::Backlog(full) => self.backlog_full = full,
            Event::Stop => self.stop(),
        }
    }

    /// A message came again: others may, too.
    fn expect_duplicates(&mut self) {
        self.probe_until = self.shared.info.runtime.elapsed() + PROBE_AFTER_DUPLICATE;
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sends an event to itself after a pause.
    fn later(&self, pause: Duration, event: Event) {
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
            DeliverySource::Transport(token) => Some(Settlement { token, settle: sagabus_core::Settle::Done }),
            DeliverySource::Due(_) => None,
        };
        self.settlements.extend(self.deliveries.values().filter_map(done));
        self.units.clear();
        self.committers.iter_mut().for_each(|committer| *committer = Committer::default());
    }

    /// Hands back everything that has not started; the rest runs to its end.
    fn stop(&mut self) {
        self.draining = true;
        crash::reach("draining");
        if sabotage::active("stop-drops-work") {
            return self.drop_work();
        }
        for (_, deliveries) in std::mem::take(&mut self.orders) {
            self.settlements.extend(deliveries.iter().map(|d| settle::returned(d.token)));
        }
        let started: HashSet<UnitId> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.stage == unit::Stage::Running || unit.stage == unit::Stage::Committing)
            .map(|(id, _)| *id)
            .collect();
        let mut waiting: Vec<UnitId> = self.units.keys().filter(|id| !started.contains(id)).copied().collect();
        // in the order of arrival, so that a seed repeats itself
        waiting.sort_unstable();
        self.to_load.clear();
        self.lanes_to_load.clear();
        self.ready.clear();
        self.stalled.clear();
        self.suspects.clear();
        for unit in waiting {
            self.return_to_transport(unit);
        }
    }
}
