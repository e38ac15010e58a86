//! A running endpoint: its tasks, from start to stop.

use super::Endpoint;
use crate::{
    Stats,
    admin::EndpointAdmin,
    bus::Bus,
    engine::{self, Counters, EndpointContext, Engine, Event, dispatcher},
};
use sagabus_core::{
    EndpointInfo, Error, LeaseKeeper, LeaseKeeperOptions, ReceiveOptions, Receiver, Result, Runtime, Store, Task,
    Transport,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// A running endpoint.
pub struct RunningEndpoint {
    pub(super) bus: Bus,
    info: Arc<EndpointInfo>,
    transport: Arc<dyn Transport>,
    shared: Option<Arc<EndpointContext>>,
    keeper: Option<Arc<LeaseKeeper>>,
    receiver: Option<Arc<dyn Receiver>>,
    events: mpsc::UnboundedSender<Event>,
    paused: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    drain: Duration,
    tasks: Mutex<Option<Tasks>>,
}

impl std::fmt::Debug for RunningEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningEndpoint")
            .field("name", &self.info.name)
            .field("node", &self.info.node)
            .field("paused", &*self.paused.borrow())
            .finish_non_exhaustive()
    }
}

/// The tasks. A stop waits for all readers at once, and for the rest one after another.
struct Tasks {
    readers: Vec<(&'static str, Task<()>)>,
    engine: Option<Task<()>>,
    dispatcher: Option<Task<()>>,
    settler: Option<Task<()>>,
}

/// How an endpoint is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether everything below is well.
    pub ok: bool,
    /// Why not, one line each.
    pub problems: Vec<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Units in flight.
    pub in_flight: u64,
}

pub(super) async fn start(endpoint: Endpoint) -> Result<RunningEndpoint> {
    let Endpoint { info, routes, transport, store, joined, owner, bus, settings } = endpoint;
    let runtime = info.runtime.clone();
    let (events, inbox) = mpsc::unbounded_channel();
    let (paused, paused_rx) = watch::channel(false);
    let (stop, stop_rx) = watch::channel(false);
    let mut running = RunningEndpoint {
        bus,
        info: info.clone(),
        transport: transport.clone(),
        shared: None,
        keeper: None,
        receiver: None,
        events: events.clone(),
        paused,
        stop,
        drain: settings.drain,
        tasks: Mutex::new(None),
    };
    let Some(store) = store else { return Ok(running) };

    let receives = !routes.is_empty();
    let keeper = Arc::new(
        LeaseKeeper::start(LeaseKeeperOptions {
            leases: store.leases(),
            group: info.name.to_string(),
            node: info.node,
            ttl: settings.lease,
            shards: receives,
            runtime: runtime.clone(),
        })
        .await?,
    );
    let shared = Arc::new(EndpointContext {
        info: info.clone(),
        store: store.clone(),
        routes,
        policy: settings.recoverability.clone(),
        counters: Counters::default(),
        joined,
        at_least_once: settings.at_least_once,
        ordered: settings.ordered,
        concurrency: settings.concurrency,
        batch: settings.batch,
        owner,
        keeper: keeper.clone(),
    });
    let (to_transport, outbound) = dispatcher();
    let mut readers = Vec::new();
    let dispatcher = runtime.spawn(outbound.run(shared.clone(), transport.clone(), events.clone()));
    let period = (settings.lease / 3).max(Duration::from_millis(50));
    let relay = engine::relay(
        shared.clone(),
        to_transport.clone(),
        keeper.clone(),
        running.bus.enlisted(),
        period,
        stop_rx.clone(),
    );
    readers.push(("the relay", runtime.spawn(relay)));
    let prune = prune(store.clone(), settings.horizon, runtime.clone(), stop_rx.clone());
    readers.push(("retention", runtime.spawn(prune)));
    let mut tasks = Tasks { readers, engine: None, dispatcher: Some(dispatcher), settler: None };

    if receives {
        // enough that every handler is busy while a commit is under way, and another load is ready
        let window = (settings.concurrency * 4).max(settings.batch * 4);
        let receiver = transport
            .receive(ReceiveOptions {
                queue: info.name.to_string(),
                node: info.node,
                window,
                ordered: settings.ordered,
                lease: settings.lease,
                offsets: store.offsets(),
                runtime: runtime.clone(),
            })
            .await?;
        let (settle, settlements) = mpsc::unbounded_channel();
        let (due_done, due_finished) = mpsc::unbounded_channel();
        let engine = Engine::new(shared.clone(), (events.clone(), inbox), settle, due_done, to_transport);
        tasks.engine = Some(runtime.spawn(engine.run()));
        tasks.settler = Some(runtime.spawn(engine::settler(receiver.clone(), settlements, runtime.clone())));
        let receive_loop = engine::receive_loop(receiver.clone(), events.clone(), paused_rx, runtime.clone());
        tasks.readers.push(("the receiver", runtime.spawn(receive_loop)));
        let due = engine::due_reader(shared.clone(), keeper.clone(), events, due_finished, stop_rx);
        tasks.readers.push(("the reader of what is due", runtime.spawn(due)));
        running.receiver = Some(receiver);
    }
    running.shared = Some(shared);
    running.keeper = Some(keeper);
    *running.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
    Ok(running)
}

impl RunningEndpoint {
    /// Sends and publishes from outside handlers.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// The administration of this endpoint. `None` without a store.
    pub fn admin(&self) -> Option<EndpointAdmin> {
        self.info.store.as_ref().map(|store| EndpointAdmin::new(self.info.name.clone(), store.admin()))
    }

    /// Takes no more messages from the transport until [`resume`](RunningEndpoint::resume). What is in flight goes on; timers
    /// and delayed retries too.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// What it has done since it started.
    pub fn stats(&self) -> Stats {
        self.shared.as_ref().map(|shared| shared.counters.read()).unwrap_or_default()
    }

    /// How it is: the transport, the store and the lease are asked.
    pub async fn health(&self) -> Health {
        let mut problems = Vec::new();
        if let Err(error) = self.transport.health().await {
            problems.push(format!("transport: {error}"));
        }
        if let Some(store) = &self.info.store
            && let Err(error) = store.now().await
        {
            problems.push(format!("store: {error}"));
        }
        if let Some(keeper) = &self.keeper
            && !keeper.is_good()
        {
            let why = keeper.error().map_or_else(|| "no heartbeat went through".to_string(), |e| e.to_string());
            problems.push(format!("lease: {why}"));
        }
        let in_flight = self.shared.as_ref().map_or(0, |s| s.counters.in_flight.load(Ordering::Relaxed));
        Health { ok: problems.is_empty(), problems, paused: *self.paused.borrow(), in_flight }
    }

    /// Stops cleanly: takes nothing new, hands back what has not started, finishes and commits what runs, sends what is
    /// committed, leaves its leases. A second call does nothing.
    ///
    /// # Errors
    /// [Closed](Error::is_closed) if work was still in flight after the drain limit. Nothing is lost then: it is handled
    /// by another node, or after the next start.
    pub async fn stop(&self) -> Result<()> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let runtime = &self.info.runtime;
        self.bus.close().await;
        let Some(tasks) = tasks else { return Ok(()) };
        if let Some(receiver) = &self.receiver {
            receiver.stop().await;
        }
        self.stop.send_replace(true);
        // a paused pump must see the stop too
        self.paused.send_replace(false);
        // an engine that has ended does not mind
        let _ = self.events.send(Event::Stop);
        let waiting_for = Mutex::new(BTreeSet::new());
        let drained = runtime.timeout(self.drain, finish(tasks, &waiting_for)).await;
        if let Some(receiver) = &self.receiver {
            receiver.close().await;
        }
        if let Some(keeper) = &self.keeper
            && drained.is_some()
        {
            keeper.close().await?;
        }
        match drained {
            Some(()) => Ok(()),
            None => Err(Error::closed(format!(
                "endpoint {} stopped with work in flight after {:?}, waiting for {}; it will be handled again",
                self.info.name,
                self.drain,
                Vec::from_iter(waiting_for.into_inner().unwrap_or_else(PoisonError::into_inner)).join(", ")
            ))),
        }
    }
}

/// Joins them; keeps in `waiting_for` what has not ended.
async fn finish(tasks: Tasks, waiting_for: &Mutex<BTreeSet<&'static str>>) {
    let waiting = || waiting_for.lock().unwrap_or_else(PoisonError::into_inner);
    let join = async |what, task: Task<()>| {
        waiting().insert(what);
        task.join().await;
        waiting().remove(what);
    };
    // one goes on for as long as the one before may have something for it: until then, there is no need to name it
    let then = async {
        let then = [
            ("handlers and commits", tasks.engine),
            ("what is being sent", tasks.dispatcher),
            ("what is being acknowledged", tasks.settler),
        ];
        for (what, task) in then {
            if let Some(task) = task {
                join(what, task).await;
            }
        }
    };
    let readers = tasks.readers.into_iter().map(|(what, task)| join(what, task));
    futures::future::join(futures::future::join_all(readers), then).await;
}

/// Drops what retention allows, once at the start and then every hour.
async fn prune(store: Arc<dyn Store>, horizon: Duration, runtime: Runtime, mut stop: watch::Receiver<bool>) {
    let mut pause = Duration::from_secs(30);
    while !*stop.borrow() {
        tokio::select! {
            biased;
            _ = stop.changed() => return,
            () = runtime.sleep(pause) => {}
        }
        pause = Duration::from_secs(3600);
        match store.prune(horizon).await {
            Ok(rows) if rows > 0 => tracing::info!(rows, "retention dropped rows"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "retention failed, trying again in an hour"),
        }
    }
}
