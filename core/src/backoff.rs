//! The growing pause between tries.

use crate::Runtime;
use std::time::Duration;

/// A pause that doubles with each failure, up to a limit, with jitter.
///
/// The pause before try `n` lies between half of `base * 2^n` and all of it, and never exceeds `limit`. The jitter keeps
/// processes that failed together from trying again together.
///
/// ```
/// # use sagabus_core::{Backoff, Runtime};
/// # use std::time::Duration;
/// let backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
/// let runtime = Runtime::system();
/// let first = backoff.pause(0, &runtime);
/// assert!(first >= Duration::from_millis(10) && first <= Duration::from_millis(20));
/// assert!(backoff.pause(u32::MAX, &runtime) <= Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    limit: Duration,
}

impl Backoff {
    /// Starts at `base` and never exceeds `limit`.
    #[must_use]
    pub const fn new(base: Duration, limit: Duration) -> Self {
        Self { base, limit }
    }

    /// The longest pause before the next try after `failures` earlier ones beyond the first; without jitter.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.limit)
    }

    /// The pause before the next try: `failures` is 0 after the first failure. Half of it is random.
    #[must_use]
    pub fn pause(&self, failures: u32, runtime: &Runtime) -> Duration {
        let half = self.ceiling(failures) / 2;
        half + runtime.jitter(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_stay_within_their_half() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        let runtime = Runtime::system();
        let ceilings: Vec<u64> =
            (0..9).map(|n| u64::try_from(backoff.ceiling(n).as_millis()).expect("short")).collect();
        assert_eq!(ceilings, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        for failures in [0, 3, 20, 31, 32, u32::MAX] {
            let (pause, ceiling) = (backoff.pause(failures, &runtime), backoff.ceiling(failures));
            assert!(pause >= ceiling / 2 && pause <= ceiling, "{pause:?} after {failures}");
        }
    }
}
