//! Waiting for the write lock of another process, up to the busy limit.

use super::shared::FileState;
use sagabus_core::{Error, ErrorKind, Result};
use std::time::Duration;

/// Pauses between attempts to get the write lock: short and random at first, so that no process is always late.
pub(super) struct BusyBackoff<'a> {
    shared: &'a FileState,
    start: Duration,
    pause: Duration,
}

impl<'a> BusyBackoff<'a> {
    pub(super) fn new(shared: &'a FileState) -> Self {
        Self { shared, start: shared.runtime().elapsed(), pause: Duration::from_micros(500) }
    }

    pub(super) async fn wait(&mut self, error: sqlx::Error) -> Result<()> {
        let runtime = self.shared.runtime();
        let waited = runtime.elapsed() - self.start;
        if waited >= self.shared.options.busy_limit {
            let text =
                format!("another process has held the write lock of {} for {waited:?}", self.shared.path.display());
            return Err(Error::with_source(ErrorKind::Transient, text, error));
        }
        runtime.sleep(runtime.jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(8));
        Ok(())
    }
}
