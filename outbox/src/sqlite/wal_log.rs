//! Progress of the write-ahead log: how much was written since the last checkpoint pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The rows written, about, after which a pass pays.
const ROWS_PER_PASS: usize = 2_000;

/// The rows written since the last pass.
#[derive(Default)]
pub(crate) struct WalProgress {
    written: AtomicUsize,
    changed: Notify,
    stopped: AtomicBool,
}

impl WalProgress {
    /// A commit wrote about so many rows.
    pub(super) fn add_rows(&self, rows: usize) {
        let before = self.written.fetch_add(rows, Ordering::Relaxed);
        if before < ROWS_PER_PASS && before + rows >= ROWS_PER_PASS {
            self.changed.notify_one();
        }
    }

    /// No more passes.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Whether there is something to do, as soon as that is known.
    pub(super) async fn wanted(&self) -> bool {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return false;
            }
            if self.written.load(Ordering::Relaxed) >= ROWS_PER_PASS {
                self.written.store(0, Ordering::Relaxed);
                return true;
            }
            self.changed.notified().await;
        }
    }
}
