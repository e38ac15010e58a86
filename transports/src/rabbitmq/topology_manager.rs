//! What the parts of one transport share, and how what is missing on the broker is made again.

use super::{
    connection::{ConnectionManager, LiveConnection},
    delay_topology::DelayTopology,
    endpoint_registry::{EndpointRegistry, Subscriptions},
    names::Names,
    options::RabbitMqOptions,
    topology,
    topology_lock::TopologyLock,
};
use crate::lock;
use sagabus_core::{Destination, Error, ErrorKind, Result, Topology};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

pub(super) struct TopologyManager {
    pub(super) names: Names,
    pub(super) options: RabbitMqOptions,
    /// For receiving, and for the reply queues.
    pub(super) consume: ConnectionManager,
    /// For declaring and binding.
    admin: ConnectionManager,
    /// What this process has asked for: made again when it is found missing.
    provisioned: Mutex<HashMap<String, Topology>>,
    /// The turn on the broker is the connection's; this is the one within the process.
    local_lock: tokio::sync::Mutex<()>,
    cached: Mutex<Option<CachedRegistry>>,
    delays: DelayTopology,
}

/// The list of endpoints, and from when it is.
#[derive(Clone)]
struct CachedRegistry {
    at: Duration,
    /// All of its bindings were made then.
    bound: bool,
    registry: Arc<EndpointRegistry>,
}

/// What to do in a turn.
enum TopologyChange<'a> {
    Declare(&'a [&'a Topology], SubscriptionSource),
    /// Binds everyone, if somebody should have got one of these.
    Rebind(&'a [&'a Destination]),
    Retire(&'a str),
}

/// Whose word it is what an endpoint gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SubscriptionSource {
    /// Ours: the endpoint is being built.
    Given,
    /// That of the list: a process that merely looks after its queues, perhaps an older one than the last that was built,
    /// must not take from a newer one what that has subscribed to.
    Registered,
}

fn are_registered(registry: &EndpointRegistry, returned: &[&Destination]) -> Vec<bool> {
    let is_registered = |to: &&Destination| match to {
        Destination::Queue(queue) => registry.has(queue),
        Destination::Topic(topic) => registry.subscribed(topic),
    };
    returned.iter().map(is_registered).collect()
}

/// For so long a list is good enough to say that nobody has subscribed to something.
const REGISTRY_CACHE_TTL: Duration = Duration::from_secs(5);

/// What is done in one turn takes no longer; the broker may be short of memory, and take nothing.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(60);

impl TopologyManager {
    pub(super) fn new(
        names: Names,
        options: RabbitMqOptions,
        consume: ConnectionManager,
        admin: ConnectionManager,
    ) -> Self {
        Self {
            names,
            options,
            consume,
            admin,
            provisioned: Mutex::default(),
            local_lock: tokio::sync::Mutex::default(),
            cached: Mutex::default(),
            delays: DelayTopology::default(),
        }
    }

    pub(super) async fn provision(&self, topology: &Topology) -> Result<()> {
        if topology.queue.is_none() {
            return self.ensure_exchanges().await;
        }
        self.declare(&[topology], SubscriptionSource::Given).await?;
        if let Some(queue) = &topology.queue {
            lock(&self.provisioned).insert(queue.clone(), topology.clone());
        }
        Ok(())
    }

    async fn declare(&self, all: &[&Topology], source: SubscriptionSource) -> Result<()> {
        let (temporary, lasting): (Vec<&Topology>, Vec<&Topology>) = all.iter().partition(|t| t.temporary);
        if lasting.is_empty() {
            self.ensure_exchanges().await?;
        } else {
            self.with_lock(TopologyChange::Declare(&lasting, source)).await?;
        }
        for topology in temporary {
            let Some(queue) = &topology.queue else { continue };
            let live = self.consume.get(false).await?;
            topology::declare_temporary(&live, &self.names, queue, &topology.subscriptions).await?;
        }
        Ok(())
    }

    /// The exchanges are there, and the queues behind them.
    pub(super) async fn ensure_exchanges(&self) -> Result<()> {
        let live = self.consume.get(false).await?;
        if topology::complete(&live, &self.names).await? {
            return Ok(());
        }
        self.with_lock(TopologyChange::Declare(&[], SubscriptionSource::Registered)).await.map(|_| ())
    }

    /// Messages for these queues can be delayed; false for those that do not exist.
    pub(super) async fn ensure_delays(&self, queues: &BTreeSet<&str>) -> Result<Vec<bool>> {
        let live = self.consume.get(false).await?;
        let late = || Err(Error::new(ErrorKind::Transient, "prepare for delays: rabbitmq does not answer in time"));
        let ensure = self.delays.ensure(&live, &self.names, queues);
        self.options.runtime.timeout(TOPOLOGY_TIMEOUT, ensure).await.unwrap_or_else(late)
    }

    /// What is needed for delays is there, if anything was delayed here.
    pub(super) async fn restore_delays(&self) -> Result<()> {
        match self.delays.used() {
            true => self.delays.restore(&*self.consume.get(false).await?, &self.names).await,
            false => Ok(()),
        }
    }

    /// Whether the queue's endpoint has no store to put dead letters into.
    pub(super) fn is_storeless(&self, queue: &str) -> bool {
        self.topology(queue).is_some_and(|topology| topology.storeless)
    }

    /// Declares and binds; if an exchange was missing, for everyone. Answers whether it was.
    async fn declare_and_bind(
        &self,
        held: &mut TopologyLock,
        wanted: &[&Topology],
        source: SubscriptionSource,
    ) -> Result<bool> {
        let (names, options) = (&self.names, &self.options);
        let before = held.registry.clone();
        held.registry.bound &= topology::complete(&held.live, names).await?;
        for topology in wanted {
            let Some(queue) = &topology.queue else { continue };
            let partitions = if topology.ordered { options.partitions } else { 0 };
            topology::declare_queues(&held.live, names, queue, options.delivery_limit, partitions).await?;
            if source == SubscriptionSource::Given || !held.registry.has(queue) {
                let subscriptions = Subscriptions::of(topology, options.partitions);
                held.registry.set(
                    queue,
                    if options.keep_stale { self.with_stale(held, queue, subscriptions) } else { subscriptions },
                );
            }
        }
        if held.registry != before {
            held.record().await?;
        }
        if !held.registry.bound {
            return self.bind_all(held).await;
        }
        for topology in wanted {
            let Some(queue) = &topology.queue else { continue };
            self.bind(held, queue).await?;
        }
        Ok(false)
    }

    /// Also what the endpoint had subscribed to before; it is reported.
    fn with_stale(&self, held: &TopologyLock, queue: &str, mut subscriptions: Subscriptions) -> Subscriptions {
        let before = held.registry.get(queue);
        let topics = before.map(|entry| subscriptions.adopt(entry)).unwrap_or_default();
        if !topics.is_empty() {
            tracing::warn!(queue, ?topics, "stale subscriptions are kept: start once with stale=remove to end them");
        }
        subscriptions
    }

    async fn bind_all(&self, held: &mut TopologyLock) -> Result<bool> {
        let queues = held.registry.queues();
        tracing::info!(endpoints = queues.len(), "an exchange or a binding was missing: all endpoints are bound");
        topology::declare_exchanges(&held.live, &self.names).await?;
        for queue in &queues {
            self.bind(held, queue).await?;
        }
        // the last step: before it no event reaches anybody, so none can miss anybody
        topology::connect(&held.live, &self.names).await?;
        held.registry.bound = true;
        Ok(true)
    }

    async fn bind(&self, held: &mut TopologyLock, queue: &str) -> Result<()> {
        let names = &self.names;
        let Some(entry) = held.registry.get(queue) else { return Ok(()) };
        if !topology::bind(&held.live, &entry.bindings(names, queue)).await? {
            tracing::warn!(queue, "a queue of this endpoint is missing: start the endpoint, or retire it");
            return Ok(());
        }
        topology::unbind(&held.live, &entry.stale(names, queue)).await?;
        held.registry.forget_former(queue);
        Ok(())
    }

    /// The endpoint is to get nothing more. Its queues stay, with what is in them.
    pub(super) async fn retire(&self, queue: &str) -> Result<()> {
        lock(&self.provisioned).remove(queue);
        self.with_lock(TopologyChange::Retire(queue)).await.map(|_| ())
    }

    async fn unbind(&self, held: &mut TopologyLock, queue: &str) -> Result<bool> {
        if let Some(entry) = held.registry.get(queue) {
            topology::unbind(&held.live, &entry.bindings(&self.names, queue)).await?;
            topology::unbind(&held.live, &entry.stale(&self.names, queue)).await?;
            held.registry.remove(queue);
        }
        Ok(false)
    }

    /// Something came back although somebody may have to get it: whether the list knows who, for each. If it does, all
    /// bindings are made again. An error: that could not be found out.
    pub(super) async fn find_registered(&self, returned: &[&Destination]) -> Result<Vec<bool>> {
        let begun = self.options.runtime.elapsed();
        let cached = lock(&self.cached).clone();
        if let Some(cached) = cached.filter(|cached| begun.saturating_sub(cached.at) < REGISTRY_CACHE_TTL) {
            let known = are_registered(&cached.registry, returned);
            if !known.contains(&true) {
                return Ok(known);
            }
        }
        let registry = self.with_lock(TopologyChange::Rebind(returned)).await?;
        Ok(are_registered(&registry, returned))
    }

    /// Waits for the turn, works, and gives it to the next one. Answers the list.
    async fn with_lock(&self, change: TopologyChange<'_>) -> Result<Arc<EndpointRegistry>> {
        let runtime = &self.options.runtime;
        let asked = runtime.elapsed();
        let _local = self.local_lock.lock().await;
        if matches!(change, TopologyChange::Rebind(_))
            && let Some(cached) = lock(&self.cached).clone()
            && cached.bound
            && cached.at >= asked
        {
            // someone else of this process had the same done while this one waited
            return Ok(cached.registry);
        }
        let at = runtime.elapsed();
        let working = async {
            let mut held = TopologyLock::acquire(&self.admin, &self.names, &self.options).await?;
            let outcome = match change {
                TopologyChange::Declare(wanted, source) => self.declare_and_bind(&mut held, wanted, source).await,
                TopologyChange::Rebind(returned) if are_registered(&held.registry, returned).contains(&true) => {
                    self.bind_all(&mut held).await
                }
                TopologyChange::Rebind(_) => Ok(false),
                TopologyChange::Retire(queue) => self.unbind(&mut held, queue).await,
            };
            let registry = Arc::new(held.registry.clone());
            held.release().await?;
            outcome.map(|bound| (registry, bound))
        };
        let late = || Err(Error::new(ErrorKind::Transient, "rabbitmq does not let us declare: no answer in time"));
        let (registry, bound) = runtime.timeout(TOPOLOGY_TIMEOUT, working).await.unwrap_or_else(late)?;
        *lock(&self.cached) = Some(CachedRegistry { at, bound, registry: Arc::clone(&registry) });
        Ok(registry)
    }

    /// A reply queue went away with the last connection: makes it again.
    pub(super) async fn redeclare_temporary(&self, live: &LiveConnection, queue: &str) -> Result<bool> {
        let Some(topology) = self.topology(queue).filter(|topology| topology.temporary) else { return Ok(false) };
        topology::declare_temporary(live, &self.names, queue, &topology.subscriptions).await?;
        Ok(true)
    }

    /// Somebody deleted the queue: makes it again, if it was this process's to make.
    pub(super) async fn redeclare(&self, queue: &str) {
        let Some(topology) = self.topology(queue).filter(|topology| !topology.temporary) else { return };
        tracing::warn!(queue, "the queue is gone: it is declared again");
        if let Err(error) = self.declare(&[&topology], SubscriptionSource::Registered).await {
            tracing::warn!(queue, %error, "could not declare it");
        }
    }

    /// Makes again whatever of this process's may be missing. A binding that somebody removed is noticed by nothing else.
    pub(super) async fn check_topology(&self) -> Result<()> {
        self.restore_delays().await?;
        if self.delays.used() {
            self.delays.resend_strays(&*self.consume.get(false).await?, &self.names).await?;
        }
        let provisioned: Vec<Topology> = lock(&self.provisioned).values().cloned().collect();
        if provisioned.is_empty() {
            return Ok(());
        }
        self.declare(&provisioned.iter().collect::<Vec<_>>(), SubscriptionSource::Registered).await?;
        let live = self.consume.get(false).await?;
        for queue in
            provisioned.iter().filter(|topology| !topology.temporary).filter_map(|topology| topology.queue.as_ref())
        {
            let aside = self.names.unreadable(queue);
            if let Some(count @ 1..) = topology::waiting(&live, &aside).await? {
                tracing::warn!(queue = aside, count, "messages that no client can read were set aside: look at them");
            }
        }
        Ok(())
    }

    fn topology(&self, queue: &str) -> Option<Topology> {
        lock(&self.provisioned).get(queue).cloned()
    }
}
