//! The simulated world: processes, broker, databases, and what goes wrong.

use crate::model::{self, Line, Order, Placed, STEPS, Work};
use sagabus::{
    Bus, Endpoint, EndpointBuilder, MessageId, Recoverability, RunningEndpoint, Runtime, SendOptions,
    store::memory::{FaultRates, MemoryStore, StoreFaults},
    transport::memory::{BrokerFaults, MemoryBroker},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const ORDERS: u64 = 60;
const NODES: usize = 2;
const ENDPOINTS: [&str; 4] = ["shop", "worker", "ledger", "lines"];
const KEYS: u64 = 4;
const LINES: u64 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A broker, and a database per endpoint.
    Split,
    /// One database for everything.
    Joined,
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) kills: u64,
    pub(crate) faults: u64,
    pub(crate) duplicates: u64,
    pub(crate) deferred: u64,
    /// Everything that must be the same when the seed runs again.
    pub(crate) trace: String,
}

struct Process {
    name: &'static str,
    runtime: Runtime,
    running: RunningEndpoint,
}

pub(crate) struct World {
    runtime: Runtime,
    layout: Layout,
    broker: MemoryBroker,
    stores: BTreeMap<&'static str, MemoryStore>,
    faults: StoreFaults,
    processes: Vec<Option<Process>>,
    verdict: Verdict,
}

impl World {
    pub(crate) async fn run(seed: u64, layout: Layout) -> Verdict {
        let runtime = Runtime::simulated(seed);
        let rates = FaultRates { before: 20, after: 20, slow: 300, latency: Duration::from_millis(30) };
        let faults = StoreFaults::seeded(seed, rates);
        let shared = MemoryStore::new(runtime.clone());
        let store = |_: &&str| match layout {
            Layout::Joined => shared.open_again(),
            Layout::Split => MemoryStore::new(runtime.clone()),
        };
        let stores = ENDPOINTS.iter().map(|name| (*name, store(name))).collect();
        let broker = MemoryBroker::new(runtime.clone());
        broker.set_faults(BrokerFaults::rough());
        let slots = ENDPOINTS.len() * NODES;
        let processes = (0..slots).map(|_| None).collect();
        let mut world = Self { runtime, layout, broker, stores, faults, processes, verdict: Verdict::default() };
        world.provision().await;
        let bus = world.bus().await;
        let placer = world.runtime.spawn(place(bus.clone(), world.runtime.clone()));
        let liner = world.runtime.spawn(write_lines(bus, world.runtime.clone()));
        world.rough_time().await;
        world.heal().await;
        placer.join().await;
        liner.join().await;
        world.drain().await;
        world.judge().await;
        world.verdict
    }

    /// Queues exist before anyone dies.
    async fn provision(&mut self) {
        for name in ENDPOINTS {
            self.builder(name, self.runtime.node(), &StoreFaults::new()).build().await.unwrap();
        }
    }

    fn builder(&self, name: &'static str, runtime: Runtime, faults: &StoreFaults) -> EndpointBuilder {
        let store = Arc::new(self.stores[name].with_faults(faults.clone()));
        let delays = [1, 2, 4, 8, 16].map(Duration::from_secs).to_vec();
        let builder = Endpoint::builder(name)
            .store(store)
            .runtime(runtime)
            .lease(Duration::from_secs(1))
            .concurrency(8)
            .recoverability(Recoverability { delays, deaths: 50, ..Recoverability::default() });
        let builder = match self.layout {
            Layout::Split => builder.transport(Arc::new(self.broker.transport())),
            Layout::Joined => builder,
        };
        match name {
            "shop" => builder.saga::<Order>().route::<Work>("worker"),
            "worker" => builder.on(model::work),
            "lines" => builder.ordered().on(model::line),
            _ => builder.on(model::done),
        }
    }

    /// A process that only places orders, and never dies.
    async fn bus(&self) -> Bus {
        loop {
            let builder =
                Endpoint::builder("placer").runtime(self.runtime.node()).migrate(false).route::<Line>("lines");
            let builder = match self.layout {
                Layout::Split => builder.transport(Arc::new(self.broker.transport())),
                Layout::Joined => builder.store(Arc::new(self.stores["shop"].with_faults(self.faults.clone()))),
            };
            // the store is rough with everyone
            if let Ok(endpoint) = builder.build().await {
                return endpoint.bus();
            }
        }
    }

    async fn start(&mut self, slot: usize) {
        let name = ENDPOINTS[slot % ENDPOINTS.len()];
        let runtime = self.runtime.node();
        let endpoint = self.builder(name, runtime.clone(), &self.faults).build().await;
        let started = match endpoint {
            Ok(endpoint) => endpoint.start().await,
            Err(error) => Err(error),
        };
        match started {
            Ok(running) => self.processes[slot] = Some(Process { name, runtime, running }),
            Err(_) => runtime.kill(),
        }
    }

    fn note(&mut self, text: &str) {
        self.verdict.trace += &format!("{:?} {text}\n", self.runtime.elapsed());
    }

    /// Processes die and come back; the store and the broker misbehave.
    async fn rough_time(&mut self) {
        let end = self.runtime.elapsed() + Duration::from_secs(20);
        while self.runtime.elapsed() < end {
            let slot = usize::try_from(self.runtime.random()).unwrap() % self.processes.len();
            match self.processes[slot].take() {
                None => self.start(slot).await,
                Some(process) => {
                    if self.runtime.random().is_multiple_of(4) {
                        // a clean stop under load, and under the same faults: it may fail, and must lose nothing
                        let stopped = process.running.stop().await.is_ok();
                        self.note(&format!("stop {} {stopped}", process.name));
                    }
                    self.count(&process);
                    self.note(&format!("kill {} {:?}", process.name, process.running.stats()));
                    process.runtime.kill();
                    self.verdict.kills += 1;
                    drop(process);
                }
            }
            let pause = self.runtime.jitter(Duration::from_millis(400));
            self.runtime.sleep(pause).await;
        }
    }

    fn count(&mut self, process: &Process) {
        let stats = process.running.stats();
        self.verdict.duplicates += stats.duplicates;
        self.verdict.deferred += stats.deferred;
    }

    async fn heal(&mut self) {
        self.verdict.faults = self.faults.hits() + self.broker.stats().unknown + self.broker.stats().duplicated;
        self.faults.heal();
        self.broker.set_faults(BrokerFaults::default());
        for slot in 0..self.processes.len() {
            if self.processes[slot].is_none() {
                self.start(slot).await;
            }
        }
    }

    async fn drain(&mut self) {
        for _ in 0..1200 {
            self.runtime.sleep(Duration::from_millis(500)).await;
            let count = |name: &str, prefix: &str| {
                self.stores[name].scratch().keys().filter(|key| key.starts_with(prefix)).count() as u64
            };
            if count("ledger", "done/") >= ORDERS && count("lines", "line/") >= KEYS * LINES {
                break;
            }
        }
        // whatever is still under way would be a second effect: give it time to show
        self.runtime.sleep(Duration::from_secs(60)).await;
    }

    async fn judge(&mut self) {
        for slot in 0..self.processes.len() {
            let Some(process) = self.processes[slot].take() else { continue };
            self.count(&process);
            if let Err(error) = process.running.stop().await {
                self.verdict.violations.push(format!("{} does not stop: {error}", process.name));
            }
            self.note(&format!("end {} {:?}", process.name, process.running.stats()));
        }
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for (name, prefix) in [("worker", "work/"), ("ledger", "done/"), ("lines", "line/")] {
            for key in self.stores[name].scratch().keys().filter(|key| key.starts_with(prefix)) {
                let (effect, _unique) = key.rsplit_once('/').unwrap();
                *found.entry(effect.to_string()).or_default() += 1;
            }
        }
        let mut expected: BTreeMap<String, u32> = BTreeMap::new();
        let all: Vec<u32> = (0..STEPS).collect();
        for order in 0..ORDERS {
            expected.insert(format!("done/{order}/1:1:{all:?}:false"), 1);
            expected.extend((0..STEPS).map(|step| (format!("work/{order}/{step}"), 1)));
        }
        for key in 0..KEYS {
            expected.extend((1..=LINES).map(|n| (format!("line/{key}/{n}"), 1)));
        }
        for (effect, times) in &expected {
            let seen = found.get(effect).copied().unwrap_or(0);
            if seen != *times {
                self.verdict.violations.push(format!("{effect}: {seen} times instead of {times}"));
            }
        }
        let ghosts = found.keys().filter(|effect| !expected.contains_key(*effect));
        self.verdict.violations.extend(ghosts.map(|effect| format!("{effect}: nobody asked for it")));
        for name in ENDPOINTS {
            let admin = sagabus::ports::Store::admin(&self.stores[name]);
            for dead in admin.dead_letters(name, 0, 100).await.unwrap() {
                self.verdict.violations.push(format!("dead letter at {name}: {} {:?}", dead.reason, dead.detail));
            }
            let counts = admin.counts().await.unwrap();
            for table in ["saga", "outbox", "timer", "retry", "parked", "queue"] {
                if counts[table] > 0 {
                    self.verdict.violations.push(format!("{} rows left in {table} at {name}", counts[table]));
                }
            }
            self.verdict.trace += &format!("{name} {counts:?}\n");
        }
    }
}

/// Places the orders, each under an id of its own, again and again until it is known to be there.
async fn place(bus: Bus, runtime: Runtime) {
    for order in 0..ORDERS {
        let id = MessageId(runtime.uuid());
        while bus.publish_with(Placed { order }, SendOptions::new().id(id)).await.is_err() {
            runtime.sleep(Duration::from_millis(50)).await;
        }
        runtime.sleep(runtime.jitter(Duration::from_millis(500))).await;
    }
}

/// Sends rows of numbered messages to the ordered endpoint, each only when the one before it is known to be there.
async fn write_lines(bus: Bus, runtime: Runtime) {
    for n in 1..=LINES {
        for key in 0..KEYS {
            let id = MessageId(runtime.uuid());
            while bus.send_with(Line { key, n }, SendOptions::new().id(id).key(key)).await.is_err() {
                runtime.sleep(Duration::from_millis(50)).await;
            }
        }
        runtime.sleep(runtime.jitter(Duration::from_millis(1500))).await;
    }
}
