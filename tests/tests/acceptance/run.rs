//! What the handlers of one test tell it, and what it tells them.

use crate::fixture::POLL;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        LazyLock, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// One test's run. Handlers capture nothing, so every message names the run it belongs to, and they note here what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Run(u64);

#[derive(Default)]
struct Noted {
    notes: Vec<String>,
    flags: BTreeSet<String>,
}

static RUNS: LazyLock<Mutex<HashMap<Run, Noted>>> = LazyLock::new(Mutex::default);

fn runs() -> MutexGuard<'static, HashMap<Run, Noted>> {
    RUNS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Run {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::SeqCst))
    }

    pub(crate) fn note(self, what: impl Into<String>) {
        runs().entry(self).or_default().notes.push(what.into());
    }

    pub(crate) fn notes(self) -> Vec<String> {
        runs().entry(self).or_default().notes.clone()
    }

    pub(crate) fn count(self, what: &str) -> usize {
        self.notes().iter().filter(|note| *note == what).count()
    }

    pub(crate) fn raise(self, flag: &str) {
        runs().entry(self).or_default().flags.insert(flag.into());
    }

    pub(crate) fn lower(self, flag: &str) {
        runs().entry(self).or_default().flags.remove(flag);
    }

    pub(crate) fn is(self, flag: &str) -> bool {
        runs().entry(self).or_default().flags.contains(flag)
    }

    /// For a handler that waits until the test lets it go on.
    pub(crate) async fn until(self, flag: &str) {
        while !self.is(flag) {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Messages of one shape: the run, a key, a number.
macro_rules! messages {
    ($($type:ident $name:literal)+) => {
        $(#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, sagabus::Message)]
        #[message(name = $name)]
        pub(crate) struct $type {
            pub(crate) run: crate::run::Run,
            pub(crate) key: String,
            pub(crate) n: u64,
        }

        #[allow(dead_code, reason = "some are only ever made by decoding")]
        impl $type {
            pub(crate) fn new(run: crate::run::Run, key: &str, n: u64) -> Self {
                Self { run, key: key.into(), n }
            }
        })+
    };
}
pub(crate) use messages;
