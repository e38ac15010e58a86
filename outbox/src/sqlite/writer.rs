//! The one task per process that writes: it takes whatever jobs are waiting, runs them in one transaction, commits,
//! and answers all of them. It never waits for company.
//!
//! At first the jobs run without savepoints, which cost a copy of every page that is touched. When one of them does not
//! go through as it is (a stale unit, an error), everything is rolled back and run again with a savepoint each, so that
//! a failure stays its own.

use super::{
    checkpoint::CHECKPOINT,
    error::{commit_failed, doing, is_busy},
    job::Job,
    lock_wait::BusyBackoff,
    op::{AnyOp, OpOutcome},
    shared::FileState,
    sql,
    write_context::Tx,
};
use sagabus_core::{Error, ErrorKind, Result, Timestamp, crash, sabotage};
use sqlx::{Connection as _, SqliteConnection};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// The rows, about, after which a transaction takes no more jobs.
const MAX_ROWS_PER_TRANSACTION: usize = 600;
/// The interval of the looks for other processes' commits, while a reader waits.
const DATA_VERSION_POLL: Duration = Duration::from_millis(7);
/// The pause after a commit while other processes use the file, so that they can write too.
const YIELD_AFTER_COMMIT: Duration = Duration::from_millis(1);
/// The time for which another process's commit counts as use.
const CONTENDED_AFTER_FOREIGN_COMMIT: Duration = Duration::from_secs(2);

const BEGIN: &str = "begin immediate;select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";
const COMMIT: &str = "commit;pragma data_version";

/// See the module.
pub(crate) struct Writer {
    pub(super) jobs: mpsc::Receiver<Job>,
    /// Taken from the channel, but not for the transaction that was under way.
    pub(super) held: Option<Job>,
    pub(super) connection: Option<SqliteConnection>,
    pub(super) shared: Arc<FileState>,
    /// `pragma data_version`: changes when others commit.
    version: i64,
    /// How many own transactions may share a commit; falls to one while handlers hold theirs for long.
    pub(super) max_participants: usize,
}

/// Why a transaction did not come about.
pub(super) enum Failure {
    /// Run it again with savepoints.
    Again,
    /// None of it was done, or the outcome is unknown.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

/// The writer task.
pub(crate) async fn run(jobs: mpsc::Receiver<Job>, connection: SqliteConnection, shared: Arc<FileState>) {
    let mut writer = Writer { jobs, held: None, connection: Some(connection), shared, version: 0, max_participants: 1 };
    while let Some(job) = writer.next().await {
        match job {
            Job::Op(op) => {
                let mut ops = vec![op];
                writer.gather(&mut ops);
                writer.run_together(ops).await;
            }
            Job::Own(reply) => writer.run_own_sql(reply).await,
            Job::Checkpoint => writer.checkpoint().await,
            Job::Close(done) => {
                writer.jobs.close();
                writer.shared.wal.stop();
                if let Some(connection) = writer.connection.take() {
                    // the log stays behind if this fails, and the next one to open the file reads it
                    let _ = connection.close().await;
                }
                writer.refuse();
                // the caller may have gone
                let _ = done.send(());
                return;
            }
        }
        if writer.shared.is_contended() {
            writer.shared.runtime().sleep(YIELD_AFTER_COMMIT).await;
        }
    }
    writer.shared.wal.stop();
}

impl Writer {
    /// The next job; while a reader waits for rows and there is none, looks for what other processes commit.
    async fn next(&mut self) -> Option<Job> {
        if let Some(job) = self.held.take() {
            return Some(job);
        }
        loop {
            if !self.shared.wakeups.is_awaited() {
                tokio::select! {
                    biased;
                    job = self.jobs.recv() => return job,
                    () = self.shared.wakeups.wait_began.notified() => {}
                }
            }
            match self.shared.runtime().timeout(DATA_VERSION_POLL, self.jobs.recv()).await {
                Some(job) => return job,
                None => self.poll_data_version().await,
            }
        }
    }

    /// What came in after the close.
    fn refuse(&mut self) {
        let closed = || Error::closed(format!("the store {} is closed", self.shared.path.display()));
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Op(op) => op.answer(Err(closed())),
                // the caller may have gone
                Job::Own(reply) => drop(reply.send(Err(closed()))),
                Job::Checkpoint => {}
                Job::Close(done) => drop(done.send(())),
            }
        }
    }

    async fn poll_data_version(&mut self) {
        let Ok(mut connection) = self.connection().await else { return };
        if let Ok(rows) = sql::script(&mut connection, "pragma data_version").await {
            self.connection = Some(connection);
            self.observe_version(&rows);
        }
    }

    pub(super) fn observe_version(&mut self, rows: &[sqlx::sqlite::SqliteRow]) {
        let Some(version) = rows.last().and_then(|row| sql::column::<i64>(row, 0).ok()) else { return };
        if version != self.version && std::mem::replace(&mut self.version, version) != 0 {
            self.shared.contended_for(CONTENDED_AFTER_FOREIGN_COMMIT);
            self.shared.wakeups.notify_all();
        }
    }

    /// What comes of it does not matter: the log only grows until the next time.
    async fn checkpoint(&mut self) {
        let Ok(mut connection) = self.connection().await else { return };
        if sql::script(&mut connection, CHECKPOINT).await.is_ok() {
            self.connection = Some(connection);
        }
    }

    fn gather(&mut self, ops: &mut Vec<Box<dyn AnyOp>>) {
        let mut weight: usize = ops.iter().map(|op| op.weight()).sum();
        while weight < MAX_ROWS_PER_TRANSACTION {
            match self.jobs.try_recv() {
                Ok(Job::Op(op)) => {
                    weight += op.weight();
                    ops.push(op);
                }
                Ok(other) => {
                    self.held = Some(other);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    async fn run_together(&mut self, mut ops: Vec<Box<dyn AnyOp>>) {
        let mut result = self.attempt(&mut ops, false).await;
        if matches!(result, Err(Failure::Again)) {
            result = self.attempt(&mut ops, true).await;
        }
        let result = result.map_err(|failure| match failure {
            Failure::Failed(error) => error,
            Failure::Again => Error::new(ErrorKind::Backend, "a careful transaction asked to be run again"),
        });
        for op in ops {
            op.answer(result.clone());
        }
    }

    async fn attempt(&mut self, ops: &mut [Box<dyn AnyOp>], with_savepoints: bool) -> Result<(), Failure> {
        let mut tx = self.begin(with_savepoints).await?;
        let single = ops.len() == 1;
        for op in ops.iter_mut() {
            tx.announcements.row_count += op.weight();
            match run_one(op, &mut tx, with_savepoints).await? {
                OpOutcome::Done => {}
                OpOutcome::Failed if with_savepoints => {}
                OpOutcome::Failed if single => {
                    self.rollback(tx).await;
                    // the operation keeps its error, which is its answer
                    return Ok(());
                }
                OpOutcome::Failed | OpOutcome::Again => {
                    self.rollback(tx).await;
                    return Err(Failure::Again);
                }
            }
        }
        self.commit(tx).await.map_err(Failure::Failed)
    }

    /// The connection, opened again if the last one was lost.
    pub(super) async fn connection(&mut self) -> Result<SqliteConnection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                self.version = 0;
                self.shared.connect_writer().await
            }
        }
    }

    /// Waits for the write lock.
    async fn begin(&mut self, with_savepoints: bool) -> Result<Tx> {
        let mut connection = self.connection().await?;
        let mut backoff = BusyBackoff::new(&self.shared);
        loop {
            match sql::script(&mut connection, BEGIN).await {
                Ok(rows) => {
                    let now = rows.last().map_or(Ok(0), |row| sql::column::<i64>(row, 0))?;
                    return Ok(Tx::new(connection, Arc::clone(&self.shared), Timestamp(now), with_savepoints));
                }
                Err(error) if is_busy(&error) => {
                    if let Err(timed_out) = backoff.wait(error).await {
                        self.connection = Some(connection);
                        return Err(timed_out);
                    }
                }
                Err(error) => return Err(doing("begin a transaction in sqlite")(error)),
            }
        }
    }

    pub(super) async fn rollback(&mut self, mut tx: Tx) {
        // if even this fails, the connection is dropped, which rolls back
        if sql::script(&mut tx.connection, "rollback").await.is_ok() {
            self.connection = Some(tx.connection);
        }
    }

    async fn commit(&mut self, mut tx: Tx) -> Result<()> {
        if tx.announcements.has_units {
            crash::reach("commit-applied");
        }
        let mut backoff = BusyBackoff::new(&self.shared);
        loop {
            match sql::script(&mut tx.connection, COMMIT).await {
                Ok(rows) => {
                    self.committed(tx);
                    self.observe_version(&rows);
                    return Ok(());
                }
                Err(error) if is_busy(&error) => {
                    if let Err(timed_out) = backoff.wait(error).await {
                        self.rollback(tx).await;
                        return Err(timed_out);
                    }
                }
                Err(error) => return self.commit_lost(error),
            }
        }
    }

    /// COMMIT failed: the connection is given up, and the outcome is unknown.
    pub(super) fn commit_lost(&mut self, error: sqlx::Error) -> Result<()> {
        tracing::error!(error = &error as &dyn std::error::Error, path = %self.shared.path.display(), "commit failed");
        if sabotage::active("commit-error-is-success") {
            return Ok(());
        }
        Err(commit_failed(error))
    }

    /// After COMMIT: the connection comes back, and waiting readers are woken.
    pub(super) fn committed(&mut self, tx: Tx) {
        if tx.announcements.has_units {
            crash::reach("commit-returned");
        }
        if tx.announcements.deleted_sent {
            crash::reach("outbox-deleted");
        }
        let wakeups = &self.shared.wakeups;
        for key in &tx.announcements.wake_keys {
            wakeups.notify(key);
        }
        self.shared.wal.add_rows(tx.announcements.row_count);
        self.connection = Some(tx.connection);
    }
}

/// Runs one operation, behind a savepoint if others must not suffer from it.
pub(super) async fn run_one(op: &mut Box<dyn AnyOp>, tx: &mut Tx, with_savepoints: bool) -> Result<OpOutcome> {
    if !with_savepoints {
        return Ok(op.run(tx).await);
    }
    sql::script(&mut tx.connection, "savepoint s").await.map_err(doing("set a savepoint in sqlite"))?;
    let flow = op.run(tx).await;
    let end = match flow {
        OpOutcome::Done => "release s",
        OpOutcome::Failed | OpOutcome::Again => "rollback to s;release s",
    };
    sql::script(&mut tx.connection, end).await.map_err(doing("end a savepoint in sqlite"))?;
    Ok(flow)
}
