//! Tells other processes what was committed: at most every few milliseconds, on a connection of its own. NOTIFY inside of
//! a business transaction takes a lock that all committers of the database share.

use super::{
    bells::Place,
    options::{Address, PostgresOptions},
};
use sagabus_core::{Runtime, Task};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Between two notifications.
const PAUSE: Duration = Duration::from_millis(10);
/// The server takes 8000 bytes at most.
const PAYLOAD: usize = 7500;

/// The notifier of one schema in this process.
pub(crate) struct Notifier {
    shared: Arc<Shared>,
    task: Mutex<Option<Task<()>>>,
}

struct Shared {
    marked: Mutex<HashSet<Place>>,
    wake: Notify,
    /// None behind a pooler, where nobody can listen.
    connect: Option<PgConnectOptions>,
    channel: String,
    process: String,
    runtime: Runtime,
}

impl Notifier {
    pub(crate) fn new(address: &Address, options: &PostgresOptions, process: &str) -> Self {
        let connect = address.connect.clone().application_name("sagabus notify").disable_statement_logging();
        let shared = Shared {
            marked: Mutex::default(),
            wake: Notify::new(),
            connect: (!options.pooler).then_some(connect),
            channel: address.schema.channel(),
            process: process.to_owned(),
            runtime: options.runtime.clone(),
        };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Something was added there, and is committed.
    pub(crate) fn mark(&self, places: &HashSet<Place>) {
        if places.is_empty() || self.shared.connect.is_none() {
            return;
        }
        self.shared.marked.lock().unwrap_or_else(PoisonError::into_inner).extend(places.iter().cloned());
        self.shared.wake.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(Task::is_finished) {
            let shared = self.shared.clone();
            *task = Some(self.shared.runtime.spawn(async move { shared.run().await }));
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

impl Shared {
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
            self.runtime.sleep(PAUSE).await;
        }
    }

    async fn tell(&self, slot: &mut Option<PgConnection>, marked: &HashSet<Place>) -> Result<(), sqlx::Error> {
        let Some(connect) = &self.connect else { return Ok(()) };
        let connection = match slot {
            Some(connection) => connection,
            None => slot.insert(connect.connect().await?),
        };
        let mut payload = self.process.clone();
        for place in marked {
            let line = place.line();
            if payload.len() + line.len() + 1 > PAYLOAD {
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
