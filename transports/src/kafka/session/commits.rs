//! Writing down what is finished: in the group, and from time to time in the store.

use super::{super::committer::Committed, Session};
use crate::lock;
use sagabus_core::Result;
use std::time::Duration;

/// What is finished is written down this often.
const COMMITS: Duration = Duration::from_millis(100);

/// The store is told this often what is written down.
const POSITIONS: Duration = Duration::from_secs(1);

impl Session {
    /// Writes down what is finished: one at a time, and the answer comes as an event. With `keep` the store is told too, if
    /// it is time.
    pub(super) fn commit(&mut self, now: bool, last: bool, keep: bool) {
        let time = self.now();
        if self.pending.is_some() {
            return;
        }
        let mut desk = lock(&self.shared.desk);
        if !now && time - self.last_commit < COMMITS && !desk.urgent() {
            return;
        }
        let due = now || (self.raising == 0 && time - self.last_keep >= POSITIONS);
        let keep = keep && due && self.keeper.is_some();
        let notes = desk.notes(last, keep);
        drop(desk);
        if notes.is_empty() {
            return;
        }
        self.last_commit = time;
        if keep {
            self.last_keep = time;
        }
        self.committer.write(notes.clone(), keep);
        self.pending = Some(notes);
    }

    pub(super) fn committed(&mut self, Committed { outcome, bases }: Committed) {
        let Some(notes) = self.pending.take() else { return };
        let mut desk = lock(&self.shared.desk);
        match outcome {
            Ok(()) => {
                desk.written(&notes);
                let raises = desk.raises(&bases);
                if let Some(keeper) = self.keeper.as_ref().filter(|_| !raises.is_empty()) {
                    keeper.raise(raises);
                    self.raising += 1;
                }
            }
            Err(error) => {
                // a rebalance is under way, or the coordinator moved: it is made again, by us or by nobody
                tracing::debug!(queue = self.shared.queue, %error, "could not commit offsets");
                desk.failed(&notes);
                self.parted = false;
            }
        }
        drop(desk);
        self.shared.arrived.notify_waiters();
    }

    pub(super) fn raised(&mut self, what: &[(u64, i64)], outcome: Result<Vec<bool>>) {
        self.raising = self.raising.saturating_sub(1);
        match outcome {
            Ok(done) => {
                let lost = lock(&self.shared.desk).raised(what, &done);
                if lost > 0 {
                    tracing::info!(queue = self.shared.queue, lost, "positions were claimed elsewhere, or reset");
                }
            }
            Err(error) => tracing::debug!(queue = self.shared.queue, ?error, "positions are written later"),
        }
    }
}
