//! Wake-ups within the process: hints, never promises.

use sagabus_core::Runtime;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// The rows that a reader may wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WakeKey {
    /// Rows in a queue.
    Queue(Arc<str>),
    /// Rows of the due tables of an endpoint.
    Due(Arc<str>),
    /// Rows in any queue: a topic was published.
    AnyQueue,
}

#[derive(Default)]
struct Signal {
    count: AtomicU64,
    notify: Notify,
}

/// The wake-ups of one schema in this process.
#[derive(Default)]
pub(crate) struct Wakeups {
    signals: Mutex<HashMap<WakeKey, Arc<Signal>>>,
}

/// The wake-ups that one reader has seen: each store handle has its own.
#[derive(Default)]
pub(crate) struct LastSeen(Mutex<HashMap<WakeKey, u64>>);

impl Wakeups {
    fn signal(&self, key: &WakeKey) -> Arc<Signal> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        match signals.get(key) {
            Some(signal) => Arc::clone(signal),
            None => Arc::clone(signals.entry(key.clone()).or_default()),
        }
    }

    /// Wakes the readers of these rows, which may have grown.
    pub(crate) fn notify(&self, key: &WakeKey) {
        if *key == WakeKey::AnyQueue {
            return self.notify_all(|key| matches!(key, WakeKey::Queue(_)));
        }
        // without a signal there has never been a reader
        let signal = self.signals.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(signal) = signal {
            signal.count.fetch_add(1, Ordering::SeqCst);
            signal.notify.notify_waiters();
        }
    }

    pub(crate) fn notify_all(&self, which: impl Fn(&WakeKey) -> bool) {
        for (key, signal) in self.signals.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if which(key) {
                signal.count.fetch_add(1, Ordering::SeqCst);
                signal.notify.notify_waiters();
            }
        }
    }

    /// Begins a reading: earlier wake-ups are answered by it.
    pub(crate) fn reading(&self, key: &WakeKey, last_seen: &LastSeen) {
        let count = self.signal(key).count.load(Ordering::SeqCst);
        last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), count);
    }

    /// Returns after a wake-up since the last reading or wait, or after `at_most`.
    pub(crate) async fn wait(&self, key: &WakeKey, last_seen: &LastSeen, at_most: Duration, runtime: &Runtime) {
        let signal = self.signal(key);
        let mut notified = std::pin::pin!(signal.notify.notified());
        // from here on no wake-up is missed
        notified.as_mut().enable();
        let before = last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if before.unwrap_or(0) == signal.count.load(Ordering::SeqCst) {
            runtime.timeout(at_most, notified).await;
        }
        self.reading(key, last_seen);
    }
}
