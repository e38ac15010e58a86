//! Tells other processes what was committed: at most every few milliseconds, on a connection of its own. NOTIFY inside of
//! a business transaction takes a lock that all committers of the database share.

use super::{
    listener::line,
    options::{Address, PostgresOptions},
};
use crate::wakeups::WakeKey;
use sagabus_core::{Runtime, Task};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The time between two notifications.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(10);
/// The size of a notification: the server takes 8000 bytes at most.
const MAX_PAYLOAD_BYTES: usize = 7500;

/// The notifier of one schema in this process.
pub(crate) struct Notifier {
    state: Arc<NotifierState>,
    task: Mutex<Option<Task<()>>>,
}

struct NotifierState {
    marked: Mutex<HashSet<WakeKey>>,
    wake: Notify,
    /// None behind a pooler, which has no LISTEN.
    connect: Option<PgConnectOptions>,
    channel: String,
    process: String,
    runtime: Runtime,
}

impl Notifier {
    pub(crate) fn new(address: &Address, options: &PostgresOptions, process: &str) -> Self {
        let connect = address.connect.clone().application_name("sagabus notify").disable_statement_logging();
        let state = NotifierState {
            marked: Mutex::default(),
            wake: Notify::new(),
            connect: (!options.pooler).then_some(connect),
            channel: address.schema.channel(),
            process: process.to_owned(),
            runtime: options.runtime.clone(),
        };
        Self { state: Arc::new(state), task: Mutex::default() }
    }

    /// Tells other processes of rows that were added there, and are committed.
    pub(crate) fn mark(&self, keys: &HashSet<WakeKey>) {
        if keys.is_empty() || self.state.connect.is_none() {
            return;
        }
        self.state.marked.lock().unwrap_or_else(PoisonError::into_inner).extend(keys.iter().cloned());
        self.state.wake.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(Task::is_finished) {
            let state = self.state.clone();
            *task = Some(self.state.runtime.spawn(async move { state.run().await }));
        }
    }

    pub(crate) fn close(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.close();
    }
}

impl NotifierState {
    async fn run(&self) {
        let mut connection = None;
        loop {
            self.wake.notified().await;
            let marked = std::mem::take(&mut *self.marked.lock().unwrap_or_else(PoisonError::into_inner));
            if !marked.is_empty()
                && let Err(error) = self.tell(&mut connection, &marked).await
            {
                // a hint that was lost: the others poll
                tracing::debug!(error = &error as &dyn std::error::Error, "a wake-up could not be sent");
                connection = None;
                self.runtime.sleep(Duration::from_millis(200)).await;
            }
            self.runtime.sleep(NOTIFY_INTERVAL).await;
        }
    }

    async fn tell(&self, slot: &mut Option<PgConnection>, marked: &HashSet<WakeKey>) -> Result<(), sqlx::Error> {
        let Some(connect) = &self.connect else { return Ok(()) };
        let connection = match slot {
            Some(connection) => connection,
            None => slot.insert(connect.connect().await?),
        };
        let mut payload = self.process.clone();
        for key in marked {
            let line = line(key);
            if payload.len() + line.len() + 1 > MAX_PAYLOAD_BYTES {
                // the rest is found by polling
                break;
            }
            payload.push('\n');
            payload.push_str(&line);
        }
        let sql = AssertSqlSafe("select pg_notify($1,$2)");
        sqlx::query(sql).bind(&self.channel).bind(payload).execute(connection).await?;
        Ok(())
    }
}
