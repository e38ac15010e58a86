//! The retry policy of an endpoint.

use sagabus_core::{Backoff, HandlerError, Runtime};
use std::time::Duration;

/// The retry policy: decides what follows when a handler fails.
///
/// The first try and its immediate retries make a round; between rounds the message waits in the `retry` table, which
/// survives restarts. After the last round it is a dead letter. Attempts are counted durably, so a restart does not
/// begin anew. Errors of store and transport never count.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a policy does nothing until `recoverability` hands it to a builder"]
pub struct Recoverability {
    /// Retries within a round, without leaving memory (default 3).
    pub immediate: u32,
    /// The pause before the first immediate retry, doubled with each one; half of it is random (default 20 ms).
    pub pause: Duration,
    /// The waits between rounds (default 10 s, 30 s, 2 min). As many rounds follow as there are waits.
    pub delays: Vec<Duration>,
    /// How often a message may be in flight, alone, while the process dies, before it is dead-lettered (default 5).
    pub deaths: u32,
    /// After so many failures in a row, of any messages, the endpoint slows down to one message at a time (default 100).
    pub slow_down_after: u32,
    /// The pause between messages while it is slowed down (default 1 s).
    pub slow_down: Duration,
}

impl Default for Recoverability {
    fn default() -> Self {
        Self {
            immediate: 3,
            pause: Duration::from_millis(20),
            delays: vec![Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(120)],
            deaths: 5,
            slow_down_after: 100,
            slow_down: Duration::from_secs(1),
        }
    }
}

/// The limit of the pauses within a round, as a multiple of the first.
const MAX_PAUSE_FACTOR: u32 = 512;

/// The decision after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Retry(Duration),
    Defer(Duration),
    DeadLetter,
}

impl Recoverability {
    /// No retries at all: the first failure makes a dead letter.
    pub fn none() -> Self {
        Self { immediate: 0, delays: Vec::new(), ..Self::default() }
    }

    /// The decision after the `failures`th failure (1 for the first).
    pub(crate) fn after(&self, failures: u32, error: &HandlerError, runtime: &Runtime) -> Next {
        if error.is_permanent() {
            return Next::DeadLetter;
        }
        let round = self.immediate + 1;
        let rounds_done = failures / round;
        let delays = u32::try_from(self.delays.len()).unwrap_or(u32::MAX);
        if rounds_done > delays {
            return Next::DeadLetter;
        }
        if let Some(delay) = error.retry_delay() {
            return Next::Defer(delay);
        }
        if !failures.is_multiple_of(round) {
            let backoff = Backoff::new(self.pause, self.pause.saturating_mul(MAX_PAUSE_FACTOR));
            return Next::Retry(backoff.pause(failures % round - 1, runtime));
        }
        let at = usize::try_from(rounds_done - 1).unwrap_or(0);
        Next::Defer(self.delays.get(at).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(policy: &Recoverability, error: &HandlerError) -> (Vec<Next>, u32) {
        let runtime = Runtime::system();
        let mut steps = Vec::new();
        for failures in 1..100 {
            let next = policy.after(failures, error, &runtime);
            if next == Next::DeadLetter {
                return (steps, failures);
            }
            steps.push(match next {
                Next::Retry(_) => Next::Retry(Duration::ZERO),
                other => other,
            });
        }
        panic!("never dead-lettered");
    }

    #[test]
    fn rounds_of_immediate_retries_with_waits_between() {
        let wait = Duration::from_secs(7);
        let policy = Recoverability { immediate: 1, delays: vec![wait], ..Recoverability::default() };
        let (steps, tries) = walk(&policy, &HandlerError::new("no"));
        assert_eq!(steps, [Next::Retry(Duration::ZERO), Next::Defer(wait), Next::Retry(Duration::ZERO)]);
        assert_eq!(tries, 4);
        assert_eq!(walk(&Recoverability::default(), &HandlerError::new("no")).1, 16);
        assert_eq!(walk(&Recoverability::none(), &HandlerError::new("no")).1, 1);
        assert_eq!(walk(&policy, &HandlerError::permanent("no")).1, 1);
    }

    #[test]
    fn a_wanted_delay_is_taken_and_still_ends() {
        let policy = Recoverability { immediate: 1, delays: vec![Duration::ZERO], ..Recoverability::default() };
        let (steps, tries) = walk(&policy, &HandlerError::retry_in(Duration::from_secs(60), "throttled"));
        assert!(steps.iter().all(|s| *s == Next::Defer(Duration::from_secs(60))));
        assert_eq!(tries, 4);
    }
}
