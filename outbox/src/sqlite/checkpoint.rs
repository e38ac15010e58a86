//! Moves what commits wrote from the log into the file, beside the writer.
//!
//! SQLite does this by itself, within the commit that finds the log long: that commit, and all behind it, wait until some
//! megabytes are on the disk. Here a connection of its own does it while the writer goes on. A log starts over only when
//! all of it is in the file, which it never is while somebody writes; so when the log has become long, the writer moves
//! the little that the last pass left, between two commits. Were this task gone, SQLite's own way still bounds the log.

use super::{error::doing, open::Shared, sql, writer::Job};
use sagabus_core::Result;
use sqlx::{Connection as _, SqliteConnection};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::{Notify, mpsc};

/// Rows written, about, after which a pass pays.
const PASS: usize = 2_000;
/// A log of so many pages is to start over.
const LONG: i64 = 8_000;
/// What the writer may move itself, in pages; with more left, there is another pass first.
const LITTLE: i64 = 500;
/// Passes before the writer moves what is left, however much.
const PASSES: usize = 3;

pub(super) const CHECKPOINT: &str = "pragma wal_checkpoint(passive)";

/// How much was written since the last pass.
#[derive(Default)]
pub(crate) struct Log {
    written: AtomicUsize,
    changed: Notify,
    stopped: AtomicBool,
}

/// What a pass has found.
struct Found {
    /// Pages in the log.
    pages: i64,
    /// Those that are not in the file yet.
    left: i64,
}

impl Log {
    /// A commit wrote about so many rows.
    pub(super) fn wrote(&self, rows: usize) {
        let before = self.written.fetch_add(rows, Ordering::Relaxed);
        if before < PASS && before + rows >= PASS {
            self.changed.notify_one();
        }
    }

    /// No more passes.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Whether there is something to do, as soon as that is known.
    async fn wanted(&self) -> bool {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return false;
            }
            if self.written.load(Ordering::Relaxed) >= PASS {
                self.written.store(0, Ordering::Relaxed);
                return true;
            }
            self.changed.notified().await;
        }
    }
}

/// Runs until the writer has stopped.
pub(crate) async fn run(shared: Arc<Shared>, jobs: mpsc::WeakSender<Job>) {
    let mut connection: Option<SqliteConnection> = None;
    while shared.log.wanted().await {
        for n in 1..=PASSES {
            let found = match pass(&shared, &mut connection).await {
                Ok(found) => found,
                Err(error) => {
                    // the next pass tries again, and SQLite's own way bounds the log
                    tracing::debug!(%error, path = %shared.path.display(), "moving the log into the file failed");
                    break;
                }
            };
            if found.pages < LONG {
                break;
            }
            if found.left <= LITTLE || n == PASSES {
                if let Some(jobs) = jobs.upgrade() {
                    // an error says that the writer is gone
                    let _ = jobs.send(Job::Checkpoint).await;
                }
                break;
            }
        }
    }
    if let Some(connection) = connection {
        // nothing was written over it
        let _ = connection.close().await;
    }
}

async fn pass(shared: &Shared, slot: &mut Option<SqliteConnection>) -> Result<Found> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => shared.connect_writer().await?,
    };
    let rows = sql::script(&mut connection, CHECKPOINT).await.map_err(doing("move the log into the file"))?;
    *slot = Some(connection);
    let Some(row) = rows.first() else { return Ok(Found { pages: 0, left: 0 }) };
    // busy: another process is at it
    let (busy, pages, moved) = (sql::column::<i64>(row, 0)?, sql::column::<i64>(row, 1)?, sql::column::<i64>(row, 2)?);
    Ok(if busy == 0 { Found { pages, left: pages - moved } } else { Found { pages: 0, left: 0 } })
}
