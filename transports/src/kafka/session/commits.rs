//! Committing what is finished: in the group, and from time to time in the store.

use super::{super::commit::CommitOutcome, Session};
use crate::lock;
use sagabus_core::Result;
use std::time::Duration;

/// How often what is finished is committed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// How often the store's positions are advanced.
const ADVANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The reason for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitReason {
    /// It is time.
    Periodic,
    /// Partitions are given up.
    Revoked,
    /// The receiver was closed: nothing will be handed out any more.
    Closed,
    /// The receiver was dropped, as in a crash: the store is not told.
    Dropped,
}

impl Session {
    /// Commits what is finished: one commit at a time, and the outcome comes as an event. The store is told too, if it is
    /// time.
    pub(super) fn commit(&mut self, reason: CommitReason) {
        let now = self.now();
        if self.committing.is_some() {
            return;
        }
        let at_once = reason != CommitReason::Periodic;
        let mut in_flight = lock(&self.state.in_flight);
        if !at_once && now - self.last_commit < COMMIT_INTERVAL && !in_flight.needs_commit_now() {
            return;
        }
        let due = at_once || (self.advances_pending == 0 && now - self.last_advance >= ADVANCE_INTERVAL);
        let advance = reason != CommitReason::Dropped && due && self.bridge.is_some();
        let commits = in_flight.pending_commits(reason == CommitReason::Closed, advance);
        drop(in_flight);
        if commits.is_empty() {
            return;
        }
        self.last_commit = now;
        if advance {
            self.last_advance = now;
        }
        self.committer.commit(commits.clone(), advance);
        self.committing = Some(commits);
    }

    pub(super) fn committed(&mut self, CommitOutcome { outcome, group_offsets }: CommitOutcome) {
        let Some(commits) = self.committing.take() else { return };
        let mut in_flight = lock(&self.state.in_flight);
        match outcome {
            Ok(()) => {
                in_flight.committed(&commits);
                let positions = in_flight.positions_to_advance(&group_offsets);
                if let Some(bridge) = self.bridge.as_ref().filter(|_| !positions.is_empty()) {
                    bridge.advance(positions);
                    self.advances_pending += 1;
                }
            }
            Err(error) => {
                // a rebalance is under way, or the coordinator moved: it is made again, if the partitions are still ours
                tracing::debug!(queue = self.state.queue, %error, "could not commit offsets");
                in_flight.commit_failed(&commits);
                self.last_commit_made = false;
            }
        }
        drop(in_flight);
        self.state.arrived.notify_waiters();
    }

    pub(super) fn advanced(&mut self, positions: &[(u64, i64)], outcome: Result<Vec<bool>>) {
        self.advances_pending = self.advances_pending.saturating_sub(1);
        match outcome {
            Ok(accepted) => {
                let lost = lock(&self.state.in_flight).positions_advanced(positions, &accepted);
                if lost > 0 {
                    tracing::info!(queue = self.state.queue, lost, "positions were claimed elsewhere, or reset");
                }
            }
            Err(error) => tracing::debug!(queue = self.state.queue, ?error, "positions are written later"),
        }
    }
}
