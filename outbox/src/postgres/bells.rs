//! Wake-ups: hints, never promises. Rung within the process at once, and by other processes over LISTEN, for which there
//! is one connection per process, made when somebody first waits.

use super::options::{Address, PostgresOptions};
use sagabus_core::{Runtime, Task};
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What rows of which kind somebody may wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Rows in a queue.
    Queue(Arc<str>),
    /// Rows of the due tables of an endpoint.
    Due(Arc<str>),
    /// A topic was published: rows in any queue.
    AnyQueue,
}

impl Place {
    /// As a line of a notification.
    pub(crate) fn line(&self) -> String {
        match self {
            Place::Queue(name) => format!("q{name}"),
            Place::Due(endpoint) => format!("d{endpoint}"),
            Place::AnyQueue => "a".into(),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let rest = line.get(1..)?;
        match line.as_bytes().first()? {
            b'q' => Some(Place::Queue(rest.into())),
            b'd' => Some(Place::Due(rest.into())),
            b'a' => Some(Place::AnyQueue),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Bell {
    rung: AtomicU64,
    notify: Notify,
}

/// The bells of one schema in this process.
pub(crate) struct Bells {
    bells: Mutex<HashMap<Place, Arc<Bell>>>,
    /// Tells our own notifications from others'.
    process: String,
    runtime: Runtime,
    channel: String,
    /// None behind a pooler.
    connect: Option<PgConnectOptions>,
    listener: Mutex<Option<Task<()>>>,
}

/// What one reader has seen of the bells: each store handle has its own.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<Place, u64>>);

impl Bells {
    pub(crate) fn new(address: &Address, options: &PostgresOptions) -> Self {
        let connect = address.connect.clone().application_name("sagabus listen").disable_statement_logging();
        Self {
            bells: Mutex::default(),
            process: options.runtime.uuid().simple().to_string(),
            runtime: options.runtime.clone(),
            channel: address.schema.channel(),
            connect: (!options.pooler).then_some(connect),
            listener: Mutex::default(),
        }
    }

    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    fn bell(&self, place: &Place) -> Arc<Bell> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        match bells.get(place) {
            Some(bell) => Arc::clone(bell),
            None => Arc::clone(bells.entry(place.clone()).or_default()),
        }
    }

    /// Something may have been added there.
    pub(crate) fn ring(&self, place: &Place) {
        if *place == Place::AnyQueue {
            return self.ring_all(|place| matches!(place, Place::Queue(_)));
        }
        // nobody has ever waited there: nobody to tell
        let bell = self.bells.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned();
        if let Some(bell) = bell {
            bell.rung.fetch_add(1, Ordering::SeqCst);
            bell.notify.notify_waiters();
        }
    }

    pub(crate) fn ring_all(&self, which: impl Fn(&Place) -> bool) {
        for (place, bell) in self.bells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if which(place) {
                bell.rung.fetch_add(1, Ordering::SeqCst);
                bell.notify.notify_waiters();
            }
        }
    }

    /// A reading begins: what rang before it needs no wake-up any more.
    pub(crate) fn reading(&self, place: &Place, seen: &Seen) {
        let rung = self.bell(place).rung.load(Ordering::SeqCst);
        seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), rung);
    }

    /// Returns when the bell has rung since the last reading or wait, or after `at_most`.
    pub(crate) async fn wait(self: &Arc<Self>, place: &Place, seen: &Seen, at_most: Duration) {
        self.listen();
        let bell = self.bell(place);
        let mut notified = std::pin::pin!(bell.notify.notified());
        // from here on no ring is missed
        notified.as_mut().enable();
        let before = seen.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied();
        if before.unwrap_or(0) == bell.rung.load(Ordering::SeqCst) {
            self.runtime.timeout(at_most, notified).await;
        }
        self.reading(place, seen);
    }

    fn listen(self: &Arc<Self>) {
        let Some(connect) = &self.connect else { return };
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.as_ref().is_none_or(Task::is_finished) {
            let (bells, connect) = (Arc::downgrade(self), connect.clone());
            let (channel, runtime) = (self.channel.clone(), self.runtime.clone());
            *listener = Some(self.runtime.spawn(async move { listen(bells, connect, channel, runtime).await }));
        }
    }

    pub(crate) fn close(&self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listener.abort();
        }
        self.ring_all(|_| true);
    }

    fn heard(&self, payload: &str) {
        let mut lines = payload.lines();
        if lines.next() != Some(&self.process) {
            lines.filter_map(Place::parse).for_each(|place| self.ring(&place));
        }
    }
}

async fn listen(bells: Weak<Bells>, connect: PgConnectOptions, channel: String, runtime: Runtime) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(connect);
    loop {
        if let Err(error) = hear(&bells, &pool, &channel).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "listening for wake-ups failed, polling meanwhile"
            );
        }
        if bells.strong_count() == 0 {
            return;
        }
        runtime.sleep(Duration::from_millis(500) + runtime.jitter(Duration::from_millis(500))).await;
    }
}

async fn hear(bells: &Weak<Bells>, pool: &sqlx::PgPool, channel: &str) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(channel).await?;
    loop {
        // what was said while nobody listened
        let Some(all) = bells.upgrade() else { return Ok(()) };
        all.ring_all(|_| true);
        drop(all);
        while let Some(notification) = listener.try_recv().await? {
            let Some(bells) = bells.upgrade() else { return Ok(()) };
            bells.heard(notification.payload());
        }
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            listener.abort();
        }
    }
}
