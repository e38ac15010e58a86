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
pub(crate) enum Place {
    /// Rows in a queue.
    Queue(Arc<str>),
    /// Rows of the due tables of an endpoint.
    Due(Arc<str>),
}

#[derive(Default)]
struct Bell {
    rung: AtomicU64,
    notify: Notify,
}

/// The bells of one database in this process.
#[derive(Default)]
pub(crate) struct Bells {
    bells: Mutex<HashMap<Place, Arc<Bell>>>,
    waiting: AtomicUsize,
    /// Tells the writer task that somebody began to wait, so that it watches other processes' commits.
    pub(crate) watch: Notify,
}

/// What one reader has seen of the bells: each store handle has its own.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<Place, u64>>);

struct Waiting<'a>(&'a Bells);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bells {
    fn bell(&self, place: &Place) -> Arc<Bell> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        match bells.get(place) {
            Some(bell) => Arc::clone(bell),
            None => Arc::clone(bells.entry(place.clone()).or_default()),
        }
    }

    /// Something may have been added there.
    pub(crate) fn ring(&self, place: &Place) {
        let bell = self.bells.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned();
        // nobody has ever waited there: nobody to tell
        if let Some(bell) = bell {
            bell.rung.fetch_add(1, Ordering::SeqCst);
            bell.notify.notify_waiters();
        }
    }

    /// Another process has committed something, or a topic was published: nobody knows where it went.
    pub(crate) fn ring_all(&self, which: impl Fn(&Place) -> bool) {
        for (place, bell) in self.bells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if which(place) {
                bell.rung.fetch_add(1, Ordering::SeqCst);
                bell.notify.notify_waiters();
            }
        }
    }

    /// Whether anyone waits.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A reading begins: what rang before it needs no wake-up any more.
    pub(crate) fn reading(&self, place: &Place, seen: &Seen) {
        let rung = self.bell(place).rung.load(Ordering::SeqCst);
        seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), rung);
    }

    /// Returns when the bell has rung since the last reading or wait, or after `at_most`.
    pub(crate) async fn wait(&self, place: &Place, seen: &Seen, at_most: Duration, runtime: &Runtime) {
        let bell = self.bell(place);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        let mut notified = std::pin::pin!(bell.notify.notified());
        // from here on no ring is missed
        notified.as_mut().enable();
        let before = seen.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied();
        if before == Some(bell.rung.load(Ordering::SeqCst)) {
            self.watch.notify_one();
            runtime.timeout(at_most, notified).await;
        }
        self.reading(place, seen);
    }
}
