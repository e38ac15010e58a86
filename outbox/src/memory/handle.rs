use super::{
    faults::{Fault, Operation, StoreFaults},
    model::Model,
};
use sagabus_core::{DatabaseId, Error, ErrorKind, MessageId, Result, Runtime, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// A store in memory.
///
/// Clones are the same handle, as parts of one process are. [`open_again`](MemoryStore::open_again) gives another handle
/// on the same data, as another process would have: it is closed on its own and has faults of its own.
#[derive(Clone)]
pub struct MemoryStore {
    pub(super) shared: Arc<SharedState>,
    pub(super) handle: Arc<Handle>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("database", &self.shared.database).finish_non_exhaustive()
    }
}

/// The state that all handles share.
pub(super) struct SharedState {
    pub(super) runtime: Runtime,
    pub(super) database: DatabaseId,
    pub(super) committers: usize,
    /// How long an own transaction may be held.
    pub(super) transaction_limit: Duration,
    model: Mutex<Model>,
    wakeups: Mutex<BTreeMap<String, Arc<Notify>>>,
}

/// The state of one handle, as one process would have it.
#[derive(Default)]
pub(super) struct Handle {
    closed: AtomicBool,
    faults: Option<StoreFaults>,
    /// For the planted bug `attempts-in-memory` only.
    pub(super) attempts: Mutex<BTreeMap<(String, String, MessageId), u32>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(runtime: Runtime) -> Self {
        Self::configured(runtime, 1, Duration::from_secs(2))
    }

    /// An empty store with so many committers, whose own transactions may be held for so long.
    pub fn configured(runtime: Runtime, committers: usize, transaction_limit: Duration) -> Self {
        let database = DatabaseId(format!("memory:{}", runtime.uuid()));
        Self {
            shared: Arc::new(SharedState {
                runtime,
                database,
                committers: committers.max(1),
                transaction_limit,
                model: Mutex::new(Model::default()),
                wakeups: Mutex::new(BTreeMap::new()),
            }),
            handle: Arc::new(Handle::default()),
        }
    }

    /// Another handle on the same data, as another process would have.
    pub fn open_again(&self) -> Self {
        Self { shared: self.shared.clone(), handle: Arc::new(Handle::default()) }
    }

    /// Another handle on the same data whose calls fail as the faults say.
    pub fn with_faults(&self, faults: StoreFaults) -> Self {
        Self { shared: self.shared.clone(), handle: Arc::new(Handle { faults: Some(faults), ..Handle::default() }) }
    }

    /// The own rows that committed transactions have left.
    pub fn scratch(&self) -> BTreeMap<String, Vec<u8>> {
        (*self.model().scratch).clone()
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        // a panic in a test under the lock leaves the model whole: every change is applied after all checks
        self.shared.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One port call: closed, latency, failure before; the work, under the lock; failure after.
    pub(super) async fn run<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Model, Timestamp) -> T + Send,
    ) -> Result<T> {
        self.open()?;
        let fault = self.fault(operation).await;
        if fault == Some(Fault::Before) {
            return Err(failed_before(operation));
        }
        let answer = self.now_run(work);
        if fault == Some(Fault::After) {
            return Err(failed_after(operation));
        }
        Ok(answer)
    }

    /// Does the work under the lock, then wakes the readers that it names.
    pub(super) fn now_run<T>(&self, work: impl FnOnce(&mut Model, Timestamp) -> T) -> T {
        let now = self.shared.runtime.now();
        let (answer, wakes) = {
            let mut model = self.model();
            let answer = work(&mut model, now);
            (answer, std::mem::take(&mut model.wakes))
        };
        for name in wakes {
            let wakeup = self.wakeup(&name);
            wakeup.notify_waiters();
            // a reader between reading and waiting finds this permit
            wakeup.notify_one();
        }
        answer
    }

    pub(super) async fn fault(&self, operation: Operation) -> Option<Fault> {
        let plan = self.handle.faults.as_ref()?.decide(operation);
        if let Some(latency) = plan.latency {
            self.shared.runtime.sleep(latency).await;
        }
        plan.fault
    }

    pub(super) fn open(&self) -> Result<()> {
        if self.handle.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the memory store is closed"));
        }
        Ok(())
    }

    pub(super) fn shut(&self) {
        self.handle.closed.store(true, Ordering::Release);
        let wakeups = self.shared.wakeups.lock().unwrap_or_else(PoisonError::into_inner);
        wakeups.values().for_each(|wakeup| wakeup.notify_waiters());
    }

    pub(super) fn wakeup(&self, name: &str) -> Arc<Notify> {
        let mut wakeups = self.shared.wakeups.lock().unwrap_or_else(PoisonError::into_inner);
        wakeups.entry(name.to_string()).or_default().clone()
    }

    pub(super) async fn wait_for(&self, name: &str, at_most: Duration) {
        if self.open().is_err() {
            return;
        }
        let wakeup = self.wakeup(name);
        // whether it rang or the time is up: the caller looks in both cases
        let _ = self.shared.runtime.timeout(at_most, wakeup.notified()).await;
    }
}

pub(super) fn failed_before(operation: Operation) -> Error {
    Error::new(ErrorKind::Transient, format!("{operation:?} failed before it did anything (injected)"))
}

pub(super) fn failed_after(operation: Operation) -> Error {
    Error::new(ErrorKind::Unknown, format!("the answer to {operation:?} was lost (injected)"))
}
