//! Wake-ups within the process: hints, never promises.

use sagabus_core::Runtime;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What rows of which kind somebody may wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WakeKey {
    /// Rows in a queue.
    Queue(Arc<str>),
    /// Rows of the due tables of an endpoint.
    Due(Arc<str>),
}

#[derive(Default)]
struct Signal {
    count: AtomicU64,
    notify: Notify,
}

/// The bells of one database in this process.
#[derive(Default)]
pub(crate) struct Wakeups {
    wakeups: Mutex<HashMap<WakeKey, Arc<Signal>>>,
    waiting: AtomicUsize,
    /// Tells the writer task that somebody began to wait, so that it watches other processes' commits.
    pub(crate) watch: Notify,
}

/// What one reader has seen of the bells: each store handle has its own.
#[derive(Default)]
pub(crate) struct LastSeen(Mutex<HashMap<WakeKey, u64>>);

struct Waiting<'a>(&'a Wakeups);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wakeups {
    fn signal(&self, key: &WakeKey) -> Arc<Signal> {
        let mut wakeups = self.wakeups.lock().unwrap_or_else(PoisonError::into_inner);
        match wakeups.get(key) {
            Some(signal) => Arc::clone(signal),
            None => Arc::clone(wakeups.entry(key.clone()).or_default()),
        }
    }

    /// Something may have been added there.
    pub(crate) fn notify(&self, key: &WakeKey) {
        let signal = self.wakeups.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        // nobody has ever waited there: nobody to tell
        if let Some(signal) = signal {
            signal.count.fetch_add(1, Ordering::SeqCst);
            signal.notify.notify_waiters();
        }
    }

    /// Another process has committed something, or a topic was published: nobody knows where it went.
    pub(crate) fn notify_matching(&self, which: impl Fn(&WakeKey) -> bool) {
        for (key, signal) in self.wakeups.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if which(key) {
                signal.count.fetch_add(1, Ordering::SeqCst);
                signal.notify.notify_waiters();
            }
        }
    }

    /// Whether anyone waits.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A reading begins: what rang before it needs no wake-up any more.
    pub(crate) fn reading(&self, key: &WakeKey, last_seen: &LastSeen) {
        let count = self.signal(key).count.load(Ordering::SeqCst);
        last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), count);
    }

    /// Returns when the bell has rung since the last reading or wait, or after `at_most`.
    pub(crate) async fn wait(&self, key: &WakeKey, last_seen: &LastSeen, at_most: Duration, runtime: &Runtime) {
        let signal = self.signal(key);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        let mut notified = std::pin::pin!(signal.notify.notified());
        // from here on no ring is missed
        notified.as_mut().enable();
        let before = last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if before == Some(signal.count.load(Ordering::SeqCst)) {
            self.watch.notify_one();
            runtime.timeout(at_most, notified).await;
        }
        self.reading(key, last_seen);
    }
}
