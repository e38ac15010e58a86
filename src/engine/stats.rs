//! Counters of an endpoint.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts of the work of an endpoint since it started. Nothing is dropped without being counted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Deliveries taken from the transport.
    pub received: u64,
    /// Deliveries without a message id, among those received: each redelivery of one is handled again.
    pub without_id: u64,
    /// Units committed as handled.
    pub handled: u64,
    /// Units whose gate was already claimed.
    pub duplicates: u64,
    /// Units that had to run again because their saga had moved on.
    pub stale: u64,
    /// Handler failures.
    pub failures: u64,
    /// Messages put off to a later retry.
    pub deferred: u64,
    /// Messages parked.
    pub parked: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages dropped, by policy.
    pub dropped: BTreeMap<String, u64>,
    /// Messages that the outbox sent and saw confirmed.
    pub dispatched: u64,
    /// Outbox rows that the relay took over from a node that was gone, or found after an unknown commit.
    pub relayed: u64,
    /// Commits, each of one or more units.
    pub commits: u64,
    /// Failures of store and transport; none of them counted as an attempt.
    pub infrastructure: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) without_id: AtomicU64,
    pub(crate) handled: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) relayed: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) infrastructure: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    dropped: Mutex<BTreeMap<String, u64>>,
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn dropped(&self, policy: &str) {
        let mut dropped = self.dropped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *dropped.entry(policy.to_string()).or_default() += 1;
    }

    pub(crate) fn read(&self) -> Stats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Stats {
            received: get(&self.received),
            without_id: get(&self.without_id),
            handled: get(&self.handled),
            duplicates: get(&self.duplicates),
            stale: get(&self.stale),
            failures: get(&self.failures),
            deferred: get(&self.deferred),
            parked: get(&self.parked),
            dead: get(&self.dead),
            dropped: self.dropped.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
            dispatched: get(&self.dispatched),
            relayed: get(&self.relayed),
            commits: get(&self.commits),
            infrastructure: get(&self.infrastructure),
        }
    }
}
