//! State of one open file, shared by the writer task and the store handles. It imports none of its users.

use super::{
    error::{doing, failed, is_busy},
    options::SqliteOptions,
    process_lock::ProcessLock,
    wal_log::WalProgress,
};
use crate::wakeups::Wakeups;
use sagabus_core::{Result, Runtime};
use sqlx::{
    ConnectOptions as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Statements that one connection keeps prepared: about 50 of ours in nine sizes.
const STATEMENTS: usize = 512;
/// Rows that the driver's thread may be ahead of us.
const ROWS_AHEAD: usize = 512;

/// The state that the writer task and the handles share.
pub(crate) struct FileState {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) options: SqliteOptions,
    pub(crate) wakeups: Wakeups,
    pub(crate) process: ProcessLock,
    /// Queues that are known to exist. They are never undeclared, so this needs no checking.
    pub(crate) queues: Mutex<HashSet<Arc<str>>>,
    /// Until when (by the runtime's clock, in microseconds) other processes are known to use the file.
    pub(crate) contended: AtomicU64,
    pub(crate) wal: WalProgress,
}

impl FileState {
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.options.runtime
    }

    /// Other processes use the file, for so long at least as far as is known.
    pub(crate) fn contended_for(&self, time: Duration) {
        let until = self.runtime().elapsed().saturating_add(time);
        self.contended.fetch_max(u64::try_from(until.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn is_contended(&self) -> bool {
        let now = u64::try_from(self.runtime().elapsed().as_micros()).unwrap_or(u64::MAX);
        self.contended.load(Ordering::Relaxed) > now
    }

    fn connect_options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(self.create)
            .foreign_keys(false)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging()
    }

    /// The connection that writes. It does its own waiting for locks: the driver's would hold up its thread, and its
    /// steps are too coarse for a fair share.
    pub(crate) async fn connect_writer(&self) -> Result<SqliteConnection> {
        let synchronous = if self.options.volatile { SqliteSynchronous::Off } else { SqliteSynchronous::Full };
        let options = self
            .connect_options()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(Duration::ZERO)
            // only where `checkpoint` does not come to it
            .pragma("wal_autocheckpoint", "16000")
            .pragma("journal_size_limit", "67108864")
            .pragma("temp_store", "memory")
            .pragma("cache_size", "-16000");
        let context = format!("open {}", self.path.display());
        let runtime = self.runtime();
        let start = runtime.elapsed();
        loop {
            match options.connect().await {
                Ok(connection) => return Ok(connection),
                // changing into WAL does not wait for others by itself
                Err(error) if is_busy(&error) && runtime.elapsed() - start < self.options.busy_limit => {
                    runtime.sleep(Duration::from_millis(1) + runtime.jitter(Duration::from_millis(10))).await;
                }
                Err(error) => return Err(failed(&context, error)),
            }
        }
    }

    pub(super) async fn connect_reader(&self) -> Result<SqliteConnection> {
        self.connect_options()
            .read_only(false)
            .busy_timeout(Duration::from_secs(5))
            .pragma("query_only", "on")
            .pragma("cache_size", "-16000")
            .connect()
            .await
            .map_err(doing("open a reading connection to sqlite"))
    }
}
