use super::{Endpoint, StoreSource, TransportSource, settings::Settings, url};
use crate::{
    Recoverability,
    at_least_once::{self, AtLeastOnceStore},
    bus::Bus,
    engine::RouteTable,
};
use sagabus_core::{
    Codec, EndpointInfo, Error, Limits, Message, NodeId, Owner, Result, Runtime, Store, Topology, Transport, check_name,
};
use sagabus_sagas::{HandlerFn, Handlers, Saga, ServiceRoutes};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

/// Builds an [`Endpoint`]. Everything that is wrong is reported by [`build`](EndpointBuilder::build), all at once, with
/// the fix in the message.
#[must_use = "a builder does nothing until `build` or `run_until`"]
pub struct EndpointBuilder {
    name: String,
    transport: Option<TransportSource>,
    store: Option<StoreSource>,
    handlers: Handlers,
    owners: HashMap<String, String>,
    problems: Vec<String>,
    settings: Settings,
}

impl std::fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("name", &self.name)
            .field("transport", &self.transport)
            .field("store", &self.store)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

impl EndpointBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            handlers: Handlers::new(name.clone()),
            name,
            transport: None,
            store: None,
            owners: HashMap::new(),
            problems: Vec::new(),
            settings: Settings::default(),
        }
    }

    /// What carries the messages: `sqlite://file.db` or `memory://name`, or a transport by value. Left out, it is the
    /// queues of the store's own database.
    pub fn transport(mut self, transport: impl Into<TransportSource>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// What holds state: `sqlite://file.db` or `memory://name`, or a store by value. Left out, it is the transport's own
    /// database, if the transport is one.
    pub fn store(mut self, store: impl Into<StoreSource>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// Adds a saga.
    pub fn saga<S: Saga>(mut self) -> Self {
        self.handlers.saga::<S>();
        self
    }

    /// Adds a service: shared state, and a [`Consume`](crate::Consume) per message.
    pub fn service<T: Send + Sync + 'static>(
        mut self,
        service: T,
        routes: impl FnOnce(ServiceRoutes<T>) -> ServiceRoutes<T>,
    ) -> Self {
        self.handlers.service(service, routes);
        self
    }

    /// Adds a function, `async fn(M, &mut Context) -> Result`. Its handler is called like its message type.
    pub fn on<M, F>(mut self, function: F) -> Self
    where
        M: Message,
        F: for<'a> HandlerFn<'a, M>,
    {
        self.handlers.function::<M, F>(None, function);
        self
    }

    /// Adds a function under a name of its own, for a second handler of the same event.
    pub fn on_named<M, F>(mut self, name: &str, function: F) -> Self
    where
        M: Message,
        F: for<'a> HandlerFn<'a, M>,
    {
        self.handlers.function::<M, F>(Some(name), function);
        self
    }

    /// Declares that another endpoint owns a command. A command that this endpoint handles itself needs no route.
    pub fn route<M: Message>(mut self, endpoint: impl Into<String>) -> Self {
        let endpoint = endpoint.into();
        if let Err(error) = check_name("endpoint", &endpoint) {
            self.problems.push(format!("the route of {}: {error}", M::NAME));
        }
        match self.owners.get(M::NAME) {
            Some(owner) if *owner != endpoint => self.problems.push(format!(
                "{} is routed to {owner} and to {endpoint}: a command has one owner; publish it if it is an event",
                M::NAME
            )),
            _ => {
                self.owners.insert(M::NAME.to_string(), endpoint);
            }
        }
        self
    }

    /// Keeps the order of messages that carry the same key ([`SendOptions::key`](crate::SendOptions::key)). A message
    /// that fails then blocks its key, and only its key, until it is handled or buried.
    pub fn ordered(mut self) -> Self {
        self.settings.ordered = true;
        self
    }

    /// Runs handlers **without a store**, on a transport that can delay messages (RabbitMQ).
    ///
    /// Nothing then remembers what was handled, so everything a handler does happens *at least once*: after a crash, a lost
    /// connection or a failed send it runs again, though it may have run to its end. What it sends has the same ids each
    /// time, so endpoints with a store still handle that once. There are no sagas and no own transactions; delayed retries
    /// wait on the transport, rounded up to seconds, and dead letters lie in its queue `<endpoint>.error`.
    pub fn at_least_once(mut self) -> Self {
        self.settings.at_least_once = true;
        self
    }

    /// Most handlers at once (default 256).
    pub fn concurrency(mut self, handlers: usize) -> Self {
        if handlers == 0 {
            self.problems.push("concurrency is 0: at least one handler must be able to run".into());
        }
        self.settings.concurrency = handlers;
        self
    }

    /// Most units in one commit (default 384). 1 commits each message on its own.
    pub fn batch(mut self, units: usize) -> Self {
        if units == 0 {
            self.problems.push("batch is 0: a commit needs at least one unit".into());
        }
        self.settings.batch = units;
        self
    }

    /// Retries, delays and the slow-down.
    pub fn recoverability(mut self, policy: Recoverability) -> Self {
        self.settings.recoverability = policy;
        self
    }

    /// The encoding of bodies (default JSON).
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = codec;
        self
    }

    /// Sizes that are accepted.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How long another node waits before it takes over the work of one that is gone (default 5 s).
    pub fn lease(mut self, lease: Duration) -> Self {
        if lease < Duration::from_millis(100) {
            self.problems.push("the lease is shorter than 100 ms: a busy machine would lose it all the time".into());
        }
        self.settings.lease = lease;
        self
    }

    /// For how long a handled message is recognised (default 7 days). Longer than any redelivery can take.
    pub fn dedup_horizon(mut self, horizon: Duration) -> Self {
        if horizon < Duration::from_secs(60) {
            self.problems.push("the dedup horizon is under a minute: redeliveries would be handled twice".into());
        }
        self.settings.horizon = horizon;
        self
    }

    /// Whether `build` creates and upgrades the schema (default true). Switch it off where the process may not; then
    /// `build` refuses a schema that does not fit.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.settings.migrate = migrate;
        self
    }

    /// How long a stop waits for work in flight (default 30 s). What is not done by then is handled by another node, or
    /// after the next start.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.settings.drain = limit;
        self
    }

    /// Where time, ids and tasks come from. For simulation.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.settings.runtime = runtime;
        self
    }

    /// Checks everything, connects, and prepares queues and schema. Nothing is received yet.
    ///
    /// # Errors
    /// [Invalid](Error::is_invalid) or [unsupported](Error::is_unsupported) for a configuration that cannot work, with
    /// what to change; otherwise what the store or the transport says.
    pub async fn build(self) -> Result<Endpoint> {
        let Self { name, transport, store, handlers, mut owners, mut problems, settings } = self;
        if settings.at_least_once {
            problems.extend(at_least_once::unsupported_settings(&name, store.is_some(), settings.ordered, &handlers));
        }
        if let Err(error) = check_name("endpoint", &name) {
            problems.push(error.to_string());
        }
        let routes = match handlers.build() {
            Ok(routes) => RouteTable::new(routes),
            Err(error) => {
                problems.push(error.to_string());
                RouteTable::default()
            }
        };
        for kind in routes.message_types() {
            if let Some(owner) = owners.get(&kind).filter(|owner| **owner != name) {
                problems.push(format!("{kind} is handled here and routed to {owner}: remove the handler or the route"));
            }
            owners.insert(kind, name.clone());
        }
        if !problems.is_empty() {
            return Err(Error::invalid(problems.join("; ")));
        }

        let (transport, mut store) = connect_both(transport, store, &settings, &name).await?;
        if let (Some(store), true) = (&store, settings.migrate) {
            store.migrate().await?;
        }
        if let Some(store) = &store {
            store.check().await?;
        }
        let has_queue = !routes.is_empty();
        let capabilities = transport.capabilities();
        if settings.at_least_once {
            store = Some(Arc::new(AtLeastOnceStore::new(&name, &transport, settings.runtime.clone())?));
        }
        if has_queue && store.is_none() {
            let instead = match capabilities.longest_delay {
                Some(_) => ", or `.at_least_once()` if its handlers may run twice for a message",
                None => "",
            };
            return Err(Error::invalid(format!(
                "endpoint {name} has handlers and no store: add `.store(\"sqlite://{name}.db\")` to the builder{instead}"
            )));
        }
        if settings.ordered && !capabilities.ordered {
            return Err(Error::unsupported(format!("endpoint {name} is ordered, and its transport keeps no order")));
        }
        transport
            .provision(&Topology {
                queue: has_queue.then(|| name.clone()),
                subscriptions: routes.message_types(),
                ordered: settings.ordered,
                temporary: false,
                storeless: settings.at_least_once,
            })
            .await?;

        let node = NodeId(settings.runtime.uuid());
        let name: Arc<str> = name.into();
        let joined = match (&store, transport.database()) {
            (Some(store), Some(database)) => store.database() == database,
            _ => false,
        };
        let info = Arc::new(EndpointInfo {
            name: name.clone(),
            node,
            codec: settings.codec.clone(),
            limits: settings.limits,
            runtime: settings.runtime.clone(),
            owners,
            reply_to: has_queue.then(|| name.to_string()),
            store: store.clone(),
        });
        let owner = Owner { endpoint: name, node };
        let bus = Bus::new(info.clone(), transport.clone(), owner.clone(), joined, settings.lease);
        Ok(Endpoint { info, routes, transport, store, joined, owner, bus, settings })
    }

    /// [`build`](Self::build)s the endpoint and runs it until the future ends; then stops it cleanly.
    pub async fn run_until(self, end: impl Future<Output = ()>) -> Result<()> {
        self.build().await?.run_until(end).await
    }
}

type Both = (Arc<dyn Transport>, Option<Arc<dyn Store>>);

async fn connect_both(
    transport: Option<TransportSource>,
    store: Option<StoreSource>,
    settings: &Settings,
    name: &str,
) -> Result<Both> {
    match (transport, store) {
        (None, None) => Err(Error::invalid(format!(
            "endpoint {name} has neither transport nor store: add `.transport(\"sqlite://{name}.db\")` to the builder"
        ))),
        (None, Some(store)) => {
            let store = store.open(&settings.runtime).await?;
            // the queues are the store's own tables
            if settings.migrate {
                store.migrate().await?;
            }
            Ok((url::queues_of(&store)?, Some(store)))
        }
        (Some(transport), store) => {
            let store = match store {
                Some(store) => Some(store.open(&settings.runtime).await?),
                None if settings.at_least_once => None,
                None => match transport.database_url().map(StoreSource::from) {
                    Some(store) => Some(store.open(&settings.runtime).await?),
                    None => None,
                },
            };
            Ok((transport.open(&settings.runtime, settings.migrate).await?, store))
        }
    }
}
