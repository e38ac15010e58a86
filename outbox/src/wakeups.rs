//! Wake-ups within the process, for both SQL stores: hints, never promises.

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

/// The rows that a reader may wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WakeKey {
    /// Rows in a queue.
    Queue(Arc<str>),
    /// Rows of the due tables of an endpoint.
    Due(Arc<str>),
    /// Rows in any queue: a topic was published.
    #[cfg(feature = "postgres")]
    AnyQueue,
}

/// The wake-ups of one key.
#[derive(Default)]
struct Signal {
    count: AtomicU64,
    notify: Notify,
}

/// The wake-ups of one database in this process.
#[derive(Default)]
pub(crate) struct Wakeups {
    signals: Mutex<HashMap<WakeKey, Arc<Signal>>>,
    waiting: AtomicUsize,
    /// Notified when a reader begins to wait. The sqlite writer then watches other processes' commits.
    pub(crate) wait_began: Notify,
}

/// The wake-ups that one reader has seen: each store handle has its own.
#[derive(Default)]
pub(crate) struct LastSeen(Mutex<HashMap<WakeKey, u64>>);

impl LastSeen {
    /// Lets a reader that has read nothing yet wait for the first wake-up of these rows. Its first wait would otherwise
    /// return at once.
    #[cfg(feature = "postgres")]
    pub(crate) fn await_first(&self, key: &WakeKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_insert(0);
    }
}

/// Counts a reader as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Signal {
    fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_waiters();
    }
}

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
        #[cfg(feature = "postgres")]
        if *key == WakeKey::AnyQueue {
            return self.notify_matching(|key| matches!(key, WakeKey::Queue(_)));
        }
        // without a signal there has never been a reader
        let signal = self.signals.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(signal) = signal {
            signal.raise();
        }
    }

    /// Wakes all readers, after a change in unknown rows.
    pub(crate) fn notify_all(&self) {
        self.notify_matching(|_| true);
    }

    fn notify_matching(&self, matches: impl Fn(&WakeKey) -> bool) {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.iter().filter(|(key, _)| matches(key)).for_each(|(_, signal)| signal.raise());
    }

    /// Whether a reader waits.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Begins a reading: earlier wake-ups are answered by it.
    pub(crate) fn reading(&self, key: &WakeKey, last_seen: &LastSeen) {
        let count = self.signal(key).count.load(Ordering::SeqCst);
        last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), count);
    }

    /// Returns after a wake-up since the last reading or wait, or after `at_most`. Without an earlier one it returns at
    /// once.
    pub(crate) async fn wait(&self, key: &WakeKey, last_seen: &LastSeen, at_most: Duration, runtime: &Runtime) {
        let signal = self.signal(key);
        let _waiting = Waiting::new(&self.waiting);
        let mut notified = std::pin::pin!(signal.notify.notified());
        // from here on no wake-up is missed
        notified.as_mut().enable();
        let before = last_seen.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if before == Some(signal.count.load(Ordering::SeqCst)) {
            self.wait_began.notify_one();
            runtime.timeout(at_most, notified).await;
        }
        self.reading(key, last_seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_by_a_wakeup_that_the_reader_has_not_seen() {
        let (wakeups, seen, runtime) = (Wakeups::default(), LastSeen::default(), Runtime::simulated(1));
        let (key, limit) = (WakeKey::Queue("q".into()), Duration::from_secs(60));
        let waited = async || {
            let start = runtime.elapsed();
            wakeups.wait(&key, &seen, limit, &runtime).await;
            runtime.elapsed() - start
        };
        assert_eq!(waited().await, Duration::ZERO, "nothing was read yet");
        assert_eq!(waited().await, limit);
        wakeups.notify(&key);
        wakeups.notify(&WakeKey::Due("q".into()));
        assert_eq!(waited().await, Duration::ZERO);
        wakeups.notify_all();
        wakeups.reading(&key, &seen);
        assert_eq!(waited().await, limit, "the reading has seen it");
        let (_, time) = futures::join!(async { wakeups.notify(&key) }, waited());
        assert_eq!(time, Duration::ZERO);
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(start_paused = true)]
    async fn a_first_wait_may_wait_for_the_first_wakeup() {
        let (wakeups, runtime) = (Wakeups::default(), Runtime::simulated(1));
        let (key, limit) = (WakeKey::Due("shop".into()), Duration::from_secs(60));
        let first_wait = async || {
            let (seen, start) = (LastSeen::default(), runtime.elapsed());
            seen.await_first(&key);
            wakeups.wait(&key, &seen, limit, &runtime).await;
            runtime.elapsed() - start
        };
        assert_eq!(first_wait().await, limit);
        wakeups.notify(&key);
        assert_eq!(first_wait().await, Duration::ZERO);
    }
}
