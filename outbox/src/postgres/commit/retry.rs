//! Repetitions of a statement that the server did not execute.

use sagabus_core::Runtime;
use std::time::Duration;

/// Repetitions after a deadlock, and after a conflict that was gone when it was looked for.
pub(super) const MAX_RETRIES: u32 = 12;

/// Waits before a repetition, longer after each.
pub(super) async fn pause(runtime: &Runtime, retries: u32) {
    runtime.sleep(runtime.jitter(Duration::from_millis(2 << retries.min(5)))).await;
}
