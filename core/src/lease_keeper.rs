//! Keeps a node's lease alive.

use crate::{Error, Lease, LeaseRequest, Leases, NodeId, Result, Runtime, Task};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Keeps this node's membership of one group alive and publishes which shards it owns.
///
/// It calls [`Leases::heartbeat`] about three times per `ttl`. The node counts its own lease as lapsed when `ttl` has
/// passed since the start of the last heartbeat that went through: then the view is empty until the next one does.
/// Nothing here is proof of anything (a paused process learns late that it has lost a shard); see [`Leases`].
///
/// A crash leaves the lease to lapse. So does dropping the keeper without [`close`](LeaseKeeper::close).
pub struct LeaseKeeper {
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<LeaseView>>,
    task: Mutex<Option<Task<()>>>,
}

impl std::fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKeeper").field("view", &self.view()).finish_non_exhaustive()
    }
}

/// What a [`LeaseKeeper`] keeps.
#[derive(Clone)]
pub struct LeaseKeeperOptions {
    /// Where the leases lie.
    pub leases: Arc<dyn Leases>,
    /// The group.
    pub group: String,
    /// This node.
    pub node: NodeId,
    /// How long a lease lasts without a heartbeat.
    pub ttl: Duration,
    /// Whether the node wants shards, or membership only.
    pub shards: bool,
    /// Time and tasks.
    pub runtime: Runtime,
}

impl std::fmt::Debug for LeaseKeeperOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKeeperOptions")
            .field("group", &self.group)
            .field("node", &self.node)
            .field("ttl", &self.ttl)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// What the node holds, as of the last heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// The shards with their epochs, in order.
    pub shards: Vec<(u16, i64)>,
    /// Those of them that were taken over from a node that did not leave cleanly. They stay listed for as long as they
    /// are held, so that a watcher that misses a view misses nothing.
    pub inherited: Vec<u16>,
    /// Those of them that are more than a fair share. Start nothing new on them, finish what is in flight, then
    /// [`release`](LeaseKeeper::release) them.
    pub surplus: Vec<u16>,
    /// How many live members the group has.
    pub members: usize,
    /// Grows whenever the lease lapsed: everything read ahead under an earlier one is void, also where a shard has the
    /// same epoch as before.
    pub generation: u64,
}

impl LeaseView {
    /// The epoch of a shard, if it is held.
    pub fn epoch(&self, shard: u16) -> Option<i64> {
        self.shards.iter().find(|(s, _)| *s == shard).map(|(_, e)| *e)
    }
}

struct Shared {
    options: LeaseKeeperOptions,
    wake: Notify,
    closing: AtomicBool,
    /// Until when the lease is good, as microseconds of `Runtime::elapsed`.
    deadline: AtomicU64,
    release: Mutex<Vec<(u16, i64)>>,
    error: Mutex<Option<Error>>,
}

impl LeaseKeeper {
    /// Joins the group. Fails if the first heartbeat does.
    pub async fn start(options: LeaseKeeperOptions) -> Result<Self> {
        let shared = Arc::new(Shared {
            options,
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            deadline: AtomicU64::new(0),
            release: Mutex::default(),
            error: Mutex::default(),
        });
        let (sender, view) = watch::channel(Arc::default());
        let mut state = State::default();
        let start = shared.options.runtime.elapsed();
        let lease = shared.options.leases.heartbeat(&shared.request(Vec::new())).await?;
        shared.accept(&mut state, start, lease);
        sender.send_replace(Arc::new(state.view.clone()));
        let task = shared.options.runtime.spawn(Arc::clone(&shared).run(state, sender));
        Ok(Self { shared, view, task: Mutex::new(Some(task)) })
    }

    /// What is held right now.
    pub fn view(&self) -> Arc<LeaseView> {
        self.view.borrow().clone()
    }

    /// Follows what is held. Ends (with an error from `changed`) when the keeper is closed or dropped.
    pub fn watch(&self) -> watch::Receiver<Arc<LeaseView>> {
        self.view.clone()
    }

    /// Whether the lease is still good by this process's clock.
    pub fn is_good(&self) -> bool {
        self.shared.now() < self.shared.deadline.load(Ordering::Acquire)
    }

    /// Why the last heartbeat failed, if it did.
    pub fn error(&self) -> Option<Error> {
        lock(&self.shared.error).clone()
    }

    /// Gives a shard up that was taken in this epoch: its work here is finished. Takes effect with the next heartbeat,
    /// which follows at once; nothing may be started on the shard meanwhile.
    pub fn release(&self, shard: u16, epoch: i64) {
        lock(&self.shared.release).push((shard, epoch));
        self.shared.wake.notify_one();
    }

    /// Asks for a heartbeat now.
    pub fn hurry(&self) {
        self.shared.wake.notify_one();
    }

    /// Leaves the group, which frees the shards at once. If this is cancelled or fails, the lease lapses by itself.
    pub async fn close(&self) -> Result<()> {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        let task = lock(&self.task).take();
        let Some(task) = task else { return Ok(()) };
        // a heartbeat under way could otherwise be executed after the leave
        task.join().await;
        self.shared.deadline.store(0, Ordering::Release);
        let LeaseKeeperOptions { leases, group, node, .. } = &self.shared.options;
        leases.leave(group, *node).await
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

#[derive(Default)]
struct State {
    view: LeaseView,
    lapsed: bool,
    /// A heartbeat failed: what its answer would have said about inherited shards is lost.
    doubt: bool,
}

impl Shared {
    async fn run(self: Arc<Self>, mut state: State, sender: watch::Sender<Arc<LeaseView>>) {
        let ttl = self.options.ttl;
        let mut pause = self.period();
        loop {
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = self.options.runtime.sleep(pause) => {}
            }
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            let release = self.take_releases(&state.view);
            let start = self.options.runtime.elapsed();
            let request = self.request(release.iter().map(|(shard, _)| *shard).collect());
            let heartbeat = self.options.leases.heartbeat(&request);
            tokio::pin!(heartbeat);
            // never cancelled: a driver may not survive it, and the answer is wanted anyhow
            let result = tokio::select! {
                biased;
                result = &mut heartbeat => result,
                () = self.until_deadline() => {
                    self.lapse(&mut state, &sender);
                    heartbeat.await
                }
            };
            match result {
                Ok(lease) => {
                    *lock(&self.error) = None;
                    self.accept(&mut state, start, lease);
                    // an answer so late that its lease may be over again is only the reason for another heartbeat
                    pause =
                        if self.now() < self.deadline.load(Ordering::Acquire) { self.period() } else { Duration::ZERO };
                }
                Err(error) => {
                    tracing::warn!(group = %self.options.group, %error, "heartbeat failed");
                    *lock(&self.error) = Some(error);
                    lock(&self.release).extend(release);
                    state.doubt = true;
                    pause = ttl / 20 + self.options.runtime.jitter(ttl / 20);
                }
            }
            if self.now() >= self.deadline.load(Ordering::Acquire) {
                self.lapse(&mut state, &sender);
            } else {
                publish(&sender, &state.view);
            }
        }
    }

    /// Takes over what a heartbeat that began at `start` has answered.
    fn accept(&self, state: &mut State, start: Duration, lease: Lease) {
        let view = &mut state.view;
        if lease.lapsed || state.lapsed {
            view.generation += 1;
            view.inherited.clear();
        }
        let before = std::mem::replace(view, LeaseView { generation: view.generation, ..LeaseView::default() });
        view.shards = lease.shards;
        view.shards.sort_unstable();
        for (shard, epoch) in &view.shards {
            let kept = before.epoch(*shard) == Some(*epoch);
            let inherited = if kept { before.inherited.contains(shard) } else { state.doubt };
            if inherited || lease.inherited.contains(shard) {
                view.inherited.push(*shard);
            }
        }
        view.surplus = lease.surplus;
        view.surplus.sort_unstable();
        view.members = lease.members;
        state.lapsed = false;
        state.doubt = false;
        let deadline = u64::try_from((start + self.options.ttl).as_micros()).unwrap_or(u64::MAX);
        self.deadline.store(deadline, Ordering::Release);
    }

    fn lapse(&self, state: &mut State, sender: &watch::Sender<Arc<LeaseView>>) {
        if !state.lapsed {
            tracing::warn!(group = %self.options.group, "lease lapsed: no heartbeat went through in time");
        }
        state.lapsed = true;
        state.view.shards.clear();
        state.view.inherited.clear();
        state.view.surplus.clear();
        publish(sender, &state.view);
    }

    /// What is to be released and is still held in the epoch it was held in when that was asked for.
    fn take_releases(&self, view: &LeaseView) -> Vec<(u16, i64)> {
        let mut release = std::mem::take(&mut *lock(&self.release));
        release.sort_unstable();
        release.dedup();
        release.retain(|(shard, epoch)| view.epoch(*shard) == Some(*epoch));
        release
    }

    fn request(&self, release: Vec<u16>) -> LeaseRequest {
        LeaseRequest {
            group: self.options.group.clone(),
            node: self.options.node,
            ttl: self.options.ttl,
            shards: self.options.shards,
            release,
        }
    }

    async fn until_deadline(&self) {
        let left = self.deadline.load(Ordering::Acquire).saturating_sub(self.now());
        self.options.runtime.sleep(Duration::from_micros(left)).await;
    }

    fn period(&self) -> Duration {
        self.options.ttl / 4 + self.options.runtime.jitter(self.options.ttl / 12)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.options.runtime.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn publish(sender: &watch::Sender<Arc<LeaseView>>, view: &LeaseView) {
    sender.send_if_modified(|current| {
        let changed = **current != *view;
        if changed {
            *current = Arc::new(view.clone());
        }
        changed
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
