//! Moves what commits wrote from the log into the file, beside the writer.
//!
//! SQLite does this by itself, within the commit that finds the log long: that commit, and all behind it, wait until some
//! megabytes are on the disk. Here a connection of its own does it while the writer goes on. A log starts over only when
//! all of it is in the file, which it never is during writes; so when the log has become long, the writer moves
//! the little that the last pass left, between two commits. Were this task gone, SQLite's own way still bounds the log.

use super::{error::doing, job::Job, shared::FileState, sql};
use sagabus_core::Result;
use sqlx::{Connection as _, SqliteConnection};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The length of the log, in pages, at which it starts over.
const RESTART_AT_PAGES: i64 = 8_000;
/// The most pages that the writer moves itself; with more left, there is another pass first.
const MAX_PAGES_FOR_WRITER: i64 = 500;
/// Passes before the writer moves what is left, however much.
const MAX_PASSES: usize = 3;

pub(super) const CHECKPOINT: &str = "pragma wal_checkpoint(passive)";

/// The state of the log after a pass.
struct PassResult {
    /// Pages in the log.
    pages: i64,
    /// Those that are not in the file yet.
    left: i64,
}

/// Runs until the writer has stopped.
pub(crate) async fn run(shared: Arc<FileState>, jobs: mpsc::WeakSender<Job>) {
    let mut connection: Option<SqliteConnection> = None;
    while shared.wal.wanted().await {
        for n in 1..=MAX_PASSES {
            let found = match pass(&shared, &mut connection).await {
                Ok(found) => found,
                Err(error) => {
                    // the next pass tries again, and SQLite's own way bounds the log
                    tracing::debug!(%error, path = %shared.path.display(), "moving the log into the file failed");
                    break;
                }
            };
            if found.pages < RESTART_AT_PAGES {
                break;
            }
            if found.left <= MAX_PAGES_FOR_WRITER || n == MAX_PASSES {
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

async fn pass(shared: &FileState, slot: &mut Option<SqliteConnection>) -> Result<PassResult> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => shared.connect_writer().await?,
    };
    let rows = sql::script(&mut connection, CHECKPOINT).await.map_err(doing("move the log into the file"))?;
    *slot = Some(connection);
    let Some(row) = rows.first() else { return Ok(PassResult { pages: 0, left: 0 }) };
    // busy: another process is at it
    let (busy, pages, moved) = (sql::column::<i64>(row, 0)?, sql::column::<i64>(row, 1)?, sql::column::<i64>(row, 2)?);
    Ok(if busy == 0 { PassResult { pages, left: pages - moved } } else { PassResult { pages: 0, left: 0 } })
}
