//! Wake-ups by other processes: one LISTEN connection per process and schema, made when a reader first waits.

use super::options::{Address, PostgresOptions};
use crate::wakeups::{WakeKey, Wakeups};
use sagabus_core::{Runtime, Task};
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// The listener of one schema in this process.
pub(crate) struct Listener {
    /// Tells this process's own notifications from others'.
    process: String,
    channel: String,
    runtime: Runtime,
    /// None behind a pooler.
    connect: Option<PgConnectOptions>,
    task: Mutex<Option<Task<()>>>,
}

impl Listener {
    pub(crate) fn new(address: &Address, options: &PostgresOptions) -> Self {
        let connect = address.connect.clone().application_name("sagabus listen").disable_statement_logging();
        Self {
            process: options.runtime.uuid().simple().to_string(),
            channel: address.schema.channel(),
            runtime: options.runtime.clone(),
            connect: (!options.pooler).then_some(connect),
            task: Mutex::default(),
        }
    }

    /// The first line of this process's notifications.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// Starts the task that listens, unless it runs.
    pub(crate) fn start(&self, wakeups: &Arc<Wakeups>) {
        let Some(connect) = &self.connect else { return };
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(Task::is_finished) {
            let hearing = Hearing {
                wakeups: Arc::downgrade(wakeups),
                process: self.process.clone(),
                channel: self.channel.clone(),
                runtime: self.runtime.clone(),
            };
            let connect = connect.clone();
            *task = Some(self.runtime.spawn(async move { hearing.run(connect).await }));
        }
    }

    pub(crate) fn close(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

/// The state of the task that listens. It ends with the wake-ups that it feeds.
struct Hearing {
    wakeups: Weak<Wakeups>,
    process: String,
    channel: String,
    runtime: Runtime,
}

impl Hearing {
    async fn run(self, connect: PgConnectOptions) {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(connect);
        loop {
            if let Err(error) = self.hear(&pool).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "listening for wake-ups failed, polling meanwhile"
                );
            }
            if self.wakeups.strong_count() == 0 {
                return;
            }
            self.runtime.sleep(Duration::from_millis(500) + self.runtime.jitter(Duration::from_millis(500))).await;
        }
    }

    async fn hear(&self, pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(&self.channel).await?;
        loop {
            // notifications may have passed while there was no connection
            let Some(wakeups) = self.wakeups.upgrade() else { return Ok(()) };
            wakeups.notify_all();
            drop(wakeups);
            while let Some(notification) = listener.try_recv().await? {
                let Some(wakeups) = self.wakeups.upgrade() else { return Ok(()) };
                self.heard(&wakeups, notification.payload());
            }
        }
    }

    fn heard(&self, wakeups: &Wakeups, payload: &str) {
        let mut lines = payload.lines();
        if lines.next() != Some(&self.process) {
            lines.filter_map(parse).for_each(|key| wakeups.notify(&key));
        }
    }
}

/// A wake-up as a line of a notification.
pub(crate) fn line(key: &WakeKey) -> String {
    match key {
        WakeKey::Queue(name) => format!("q{name}"),
        WakeKey::Due(endpoint) => format!("d{endpoint}"),
        WakeKey::AnyQueue => "a".into(),
    }
}

fn parse(line: &str) -> Option<WakeKey> {
    let rest = line.get(1..)?;
    match line.as_bytes().first()? {
        b'q' => Some(WakeKey::Queue(rest.into())),
        b'd' => Some(WakeKey::Due(rest.into())),
        b'a' => Some(WakeKey::AnyQueue),
        _ => None,
    }
}
