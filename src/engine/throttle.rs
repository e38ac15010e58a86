//! Limits on the number of handlers that run.

use super::retry_policy::Recoverability;

/// The state that slows an endpoint down: failures in a row, and a backlog of sends.
#[derive(Default)]
pub(super) struct Throttle {
    failures_in_a_row: u32,
    /// The pause between two messages while nothing succeeds.
    pub(super) pausing: bool,
    pub(super) backlog_full: bool,
}

impl Throttle {
    /// The number of handlers that may run: all, or one at a time while nothing succeeds, or none.
    pub(super) fn limit(&self, policy: &Recoverability, concurrency: usize) -> usize {
        match (self.backlog_full, self.is_slow(policy), self.pausing) {
            (true, ..) | (_, true, true) => 0,
            (_, true, false) => 1,
            _ => concurrency,
        }
    }

    pub(super) fn is_slow(&self, policy: &Recoverability) -> bool {
        self.failures_in_a_row >= policy.slow_down_after
    }

    pub(super) fn failed(&mut self) {
        self.failures_in_a_row += 1;
    }

    pub(super) fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
    }
}
