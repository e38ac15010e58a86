//! What the parts of one transport share, and how what is missing on the broker is made again.

use super::{
    delays::Delays,
    link::{Link, Live},
    names::Names,
    options::RabbitOptions,
    registry::{Endpoints, Shape},
    topology,
    turn::Turn,
};
use crate::lock;
use sagabus_core::{Destination, Error, ErrorKind, Result, Topology};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

pub(super) struct Home {
    pub(super) names: Names,
    pub(super) options: RabbitOptions,
    /// For receiving, and for the reply queues.
    pub(super) consume: Link,
    /// For declaring and binding.
    admin: Link,
    /// What this process has asked for: made again when it is found missing.
    known: Mutex<HashMap<String, Topology>>,
    /// The turn on the broker is the connection's; this is the one within the process.
    turn: tokio::sync::Mutex<()>,
    seen: Mutex<Option<Seen>>,
    delays: Delays,
}

/// The list of endpoints, and from when it is.
#[derive(Clone)]
struct Seen {
    at: Duration,
    /// All of its bindings were made then.
    bound: bool,
    list: Arc<Endpoints>,
}

/// What to do in a turn.
enum Work<'a> {
    Provide(&'a [&'a Topology], Shapes),
    /// Binds everyone, if somebody should have got one of these.
    Mend(&'a [&'a Destination]),
    Retire(&'a str),
}

/// Whose word it is what an endpoint gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shapes {
    /// Ours: the endpoint is being built.
    Ours,
    /// That of the list: a process that merely looks after its queues, perhaps an older one than the last that was built,
    /// must not take from a newer one what that has subscribed to.
    Listed,
}

fn claims(list: &Endpoints, returned: &[&Destination]) -> Vec<bool> {
    let claimed = |to: &&Destination| match to {
        Destination::Queue(queue) => list.has(queue),
        Destination::Topic(topic) => list.subscribed(topic),
    };
    returned.iter().map(claimed).collect()
}

/// For so long a list is good enough to say that nobody has subscribed to something.
const FRESH: Duration = Duration::from_secs(5);

/// What is done in one turn takes no longer; the broker may be short of memory, and take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

impl Home {
    pub(super) fn new(names: Names, options: RabbitOptions, consume: Link, admin: Link) -> Self {
        Self {
            names,
            options,
            consume,
            admin,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            delays: Delays::default(),
        }
    }

    pub(super) async fn provision(&self, topology: &Topology) -> Result<()> {
        if topology.queue.is_none() {
            return self.ready().await;
        }
        self.declare(&[topology], Shapes::Ours).await?;
        if let Some(queue) = &topology.queue {
            lock(&self.known).insert(queue.clone(), topology.clone());
        }
        Ok(())
    }

    async fn declare(&self, all: &[&Topology], shapes: Shapes) -> Result<()> {
        let (temporary, lasting): (Vec<&Topology>, Vec<&Topology>) = all.iter().partition(|t| t.temporary);
        if lasting.is_empty() {
            self.ready().await?;
        } else {
            self.in_turn(Work::Provide(&lasting, shapes)).await?;
        }
        for topology in temporary {
            let Some(queue) = &topology.queue else { continue };
            let live = self.consume.get(false).await?;
            topology::declare_temporary(&live, &self.names, queue, &topology.subscriptions).await?;
        }
        Ok(())
    }

    /// The exchanges are there, and the queues behind them.
    pub(super) async fn ready(&self) -> Result<()> {
        let live = self.consume.get(false).await?;
        if topology::complete(&live, &self.names).await? {
            return Ok(());
        }
        self.in_turn(Work::Provide(&[], Shapes::Listed)).await.map(|_| ())
    }

    /// Messages for these queues can be delayed; false for those that do not exist.
    pub(super) async fn delays_ready(&self, queues: &BTreeSet<&str>) -> Result<Vec<bool>> {
        let live = self.consume.get(false).await?;
        let late = || Err(Error::new(ErrorKind::Transient, "prepare for delays: rabbitmq does not answer in time"));
        let ready = self.delays.ready(&live, &self.names, queues);
        self.options.runtime.timeout(PATIENCE, ready).await.unwrap_or_else(late)
    }

    /// What is needed for delays is there, if anything was delayed here.
    pub(super) async fn delays_again(&self) -> Result<()> {
        match self.delays.used() {
            true => self.delays.again(&*self.consume.get(false).await?, &self.names).await,
            false => Ok(()),
        }
    }

    /// Whether the queue's endpoint has no store to put dead letters into.
    pub(super) fn is_storeless(&self, queue: &str) -> bool {
        self.topology(queue).is_some_and(|topology| topology.storeless)
    }

    /// Declares and binds; if an exchange was missing, for everyone. Answers whether it was.
    async fn provide(&self, turn: &mut Turn, wanted: &[&Topology], shapes: Shapes) -> Result<bool> {
        let (names, options) = (&self.names, &self.options);
        let before = turn.list.clone();
        turn.list.bound &= topology::complete(&turn.live, names).await?;
        for topology in wanted {
            let Some(queue) = &topology.queue else { continue };
            let partitions = if topology.ordered { options.partitions } else { 0 };
            topology::declare_queues(&turn.live, names, queue, options.delivery_limit, partitions).await?;
            if shapes == Shapes::Ours || !turn.list.has(queue) {
                let shape = Shape::of(topology, options.partitions);
                turn.list.set(queue, if options.keep_stale { self.with_stale(turn, queue, shape) } else { shape });
            }
        }
        if turn.list != before {
            turn.note().await?;
        }
        if !turn.list.bound {
            return self.bind_all(turn).await;
        }
        for topology in wanted {
            let Some(queue) = &topology.queue else { continue };
            self.bind(turn, queue).await?;
        }
        Ok(false)
    }

    /// Also what the endpoint had subscribed to before; it is reported.
    fn with_stale(&self, turn: &Turn, queue: &str, mut shape: Shape) -> Shape {
        let before = turn.list.get(queue);
        let topics = before.map(|entry| shape.adopt(entry)).unwrap_or_default();
        if !topics.is_empty() {
            tracing::warn!(queue, ?topics, "stale subscriptions are kept: start once with stale=remove to end them");
        }
        shape
    }

    async fn bind_all(&self, turn: &mut Turn) -> Result<bool> {
        let queues = turn.list.queues();
        tracing::info!(endpoints = queues.len(), "an exchange or a binding was missing: all endpoints are bound");
        topology::declare_exchanges(&turn.live, &self.names).await?;
        for queue in &queues {
            self.bind(turn, queue).await?;
        }
        // the last step: before it no event reaches anybody, so none can miss anybody
        topology::connect(&turn.live, &self.names).await?;
        turn.list.bound = true;
        Ok(true)
    }

    async fn bind(&self, turn: &mut Turn, queue: &str) -> Result<()> {
        let names = &self.names;
        let Some(entry) = turn.list.get(queue) else { return Ok(()) };
        if !topology::bind(&turn.live, &entry.bindings(names, queue)).await? {
            tracing::warn!(queue, "a queue of this endpoint is missing: start the endpoint, or retire it");
            return Ok(());
        }
        topology::unbind(&turn.live, &entry.stale(names, queue)).await?;
        turn.list.settle(queue);
        Ok(())
    }

    /// The endpoint is to get nothing more. Its queues stay, with what is in them.
    pub(super) async fn retire(&self, queue: &str) -> Result<()> {
        lock(&self.known).remove(queue);
        self.in_turn(Work::Retire(queue)).await.map(|_| ())
    }

    async fn unbind(&self, turn: &mut Turn, queue: &str) -> Result<bool> {
        if let Some(entry) = turn.list.get(queue) {
            topology::unbind(&turn.live, &entry.bindings(&self.names, queue)).await?;
            topology::unbind(&turn.live, &entry.stale(&self.names, queue)).await?;
            turn.list.remove(queue);
        }
        Ok(false)
    }

    /// Something came back although somebody may have to get it: whether the list knows who, for each. If it does, all
    /// bindings are made again. An error: that could not be found out.
    pub(super) async fn claimed(&self, returned: &[&Destination]) -> Result<Vec<bool>> {
        let begun = self.options.runtime.elapsed();
        let seen = lock(&self.seen).clone();
        if let Some(seen) = seen.filter(|seen| begun.saturating_sub(seen.at) < FRESH) {
            let claims = claims(&seen.list, returned);
            if !claims.contains(&true) {
                return Ok(claims);
            }
        }
        let list = self.in_turn(Work::Mend(returned)).await?;
        Ok(claims(&list, returned))
    }

    /// Waits for the turn, works, and gives it to the next one. Answers the list.
    async fn in_turn(&self, work: Work<'_>) -> Result<Arc<Endpoints>> {
        let runtime = &self.options.runtime;
        let asked = runtime.elapsed();
        let _turn = self.turn.lock().await;
        if matches!(work, Work::Mend(_))
            && let Some(seen) = lock(&self.seen).clone()
            && seen.bound
            && seen.at >= asked
        {
            // someone else of this process had the same done while this one waited
            return Ok(seen.list);
        }
        let at = runtime.elapsed();
        let working = async {
            let mut turn = Turn::take(&self.admin, &self.names, &self.options).await?;
            let outcome = match work {
                Work::Provide(wanted, shapes) => self.provide(&mut turn, wanted, shapes).await,
                Work::Mend(returned) if claims(&turn.list, returned).contains(&true) => self.bind_all(&mut turn).await,
                Work::Mend(_) => Ok(false),
                Work::Retire(queue) => self.unbind(&mut turn, queue).await,
            };
            let list = Arc::new(turn.list.clone());
            turn.end().await?;
            outcome.map(|bound| (list, bound))
        };
        let late = || Err(Error::new(ErrorKind::Transient, "rabbitmq does not let us declare: no answer in time"));
        let (list, bound) = runtime.timeout(PATIENCE, working).await.unwrap_or_else(late)?;
        *lock(&self.seen) = Some(Seen { at, bound, list: Arc::clone(&list) });
        Ok(list)
    }

    /// A reply queue went away with the last connection: makes it again.
    pub(super) async fn revive(&self, live: &Live, queue: &str) -> Result<bool> {
        let Some(topology) = self.topology(queue).filter(|topology| topology.temporary) else { return Ok(false) };
        topology::declare_temporary(live, &self.names, queue, &topology.subscriptions).await?;
        Ok(true)
    }

    /// Somebody deleted the queue: makes it again, if it was this process's to make.
    pub(super) async fn restore(&self, queue: &str) {
        let Some(topology) = self.topology(queue).filter(|topology| !topology.temporary) else { return };
        tracing::warn!(queue, "the queue is gone: it is declared again");
        if let Err(error) = self.declare(&[&topology], Shapes::Listed).await {
            tracing::warn!(queue, %error, "could not declare it");
        }
    }

    /// Makes again whatever of this process's may be missing. A binding that somebody removed is noticed by nothing else.
    pub(super) async fn check(&self) -> Result<()> {
        self.delays_again().await?;
        if self.delays.used() {
            self.delays.send_strays(&*self.consume.get(false).await?, &self.names).await?;
        }
        let known: Vec<Topology> = lock(&self.known).values().cloned().collect();
        if known.is_empty() {
            return Ok(());
        }
        self.declare(&known.iter().collect::<Vec<_>>(), Shapes::Listed).await?;
        let live = self.consume.get(false).await?;
        for queue in known.iter().filter(|topology| !topology.temporary).filter_map(|topology| topology.queue.as_ref())
        {
            let aside = self.names.unreadable(queue);
            if let Some(count @ 1..) = topology::waiting(&live, &aside).await? {
                tracing::warn!(queue = aside, count, "messages that no client can read were set aside: look at them");
            }
        }
        Ok(())
    }

    fn topology(&self, queue: &str) -> Option<Topology> {
        lock(&self.known).get(queue).cloned()
    }
}
