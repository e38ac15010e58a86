//! Connections. A connection goes back by [`Conn::release`]; one that is dropped instead, as by a cancelled future,
//! may be in any state and is closed. So no open transaction ever comes back to the pool.

use super::{
    error::{Fault, fault},
    options::{Address, PostgresOptions},
};
use sagabus_core::{Error, ErrorKind, Result, Runtime};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Statements that one connection keeps prepared, at most.
const MAX_PREPARED_STATEMENTS: usize = 256;
/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);
/// The time that a server has beyond its own limit to cancel a statement. Then the connection counts as lost.
const CANCEL_MARGIN: Duration = Duration::from_secs(5);

/// Connections of one purpose, with its settings.
pub(crate) struct Pool {
    connect: PgConnectOptions,
    location: String,
    connect_limit: Duration,
    answer_limit: Duration,
    named: bool,
    runtime: Runtime,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(PgConnection, Duration)>>,
    closed: AtomicBool,
}

/// The purpose of connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The store's own statements.
    Work,
    /// Handlers' own transactions: the planner's settings are the server's.
    Own,
}

impl Pool {
    pub(crate) fn new(address: &Address, options: &PostgresOptions, purpose: Purpose) -> Arc<Self> {
        let size = match purpose {
            Purpose::Work => options.connections.max(options.committers + 2),
            Purpose::Own => options.transactions.max(1),
        };
        Arc::new(Self {
            connect: connect_options(address, options, purpose),
            location: address.location.clone(),
            connect_limit: options.connect_limit,
            answer_limit: options.statement_limit + CANCEL_MARGIN,
            named: !options.pooler,
            runtime: options.runtime.clone(),
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// A connection, as soon as there is one.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Conn> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| self.closed_error())?;
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        let connection = match self.idle_one().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Conn { connection: Some(connection), pool: self.clone(), _permit: permit, discarded: false })
    }

    async fn idle_one(&self) -> Option<PgConnection> {
        loop {
            let (mut connection, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if self.runtime.elapsed().saturating_sub(since) < PING_AFTER_IDLE {
                return Some(connection);
            }
            if let Some(Ok(())) = self.runtime.timeout(self.connect_limit, connection.ping()).await {
                return Some(connection);
            }
        }
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        let what = || format!("connect to {}", self.location);
        match self.runtime.timeout(self.connect_limit, self.connect.connect()).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => Err(Error::with_source(connect_kind(&error), what(), error)),
            None => Err(Error::new(ErrorKind::Transient, format!("{}: no answer in {:?}", what(), self.connect_limit))),
        }
    }

    /// The server has gone away: what is idle was connected to it.
    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn closed_error(&self) -> Error {
        Error::closed(format!("the store {} is closed", self.location))
    }

    /// Waits for what is under way, for a time, and closes connections.
    pub(crate) async fn close(&self, size: usize) {
        self.closed.store(true, Ordering::Release);
        let all = u32::try_from(size).unwrap_or(u32::MAX);
        // one that is held longer is closed when it comes back
        let _ = self.runtime.timeout(Duration::from_secs(5), self.permits.acquire_many(all)).await;
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (connection, _) in idle {
            // nothing is open on it, so nothing can be lost
            let _ = self.runtime.timeout(Duration::from_secs(1), connection.close()).await;
        }
    }
}

/// A connection in use.
pub(crate) struct Conn {
    connection: Option<PgConnection>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
    discarded: bool,
}

impl Conn {
    /// The driver's connection.
    #[allow(clippy::expect_used, reason = "only `release` takes it, and consumes the guard")]
    pub(crate) fn get(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a connection in use")
    }

    /// The time limit of an answer, its clock, and whether statements keep their names.
    pub(crate) fn settings(&self) -> (Duration, Runtime, bool) {
        (self.pool.answer_limit, self.pool.runtime.clone(), self.pool.named)
    }

    /// Has the connection closed instead of used again.
    pub(crate) fn discard(&mut self) {
        self.discarded = true;
    }

    /// Discards the connection if an error says that it cannot be used again.
    pub(crate) fn observe_error(&mut self, error: &sqlx::Error) {
        if fault(error) == Fault::Lost {
            self.discarded = true;
            self.pool.forget_idle();
        }
        let code = error.as_database_error().and_then(|error| error.code());
        // its prepared statements are of another schema version, or of another server behind a pooler
        self.discarded |= matches!(code.as_deref(), Some("0A000" | "26000" | "08P01"));
    }

    /// The answer of a statement that had a time limit. A connection without an answer is discarded.
    pub(crate) fn within_limit<T>(&mut self, answer: Option<Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let Some(answer) = answer else {
            self.discard();
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server did not answer in time");
            return Err(sqlx::Error::Io(late));
        };
        if let Err(error) = &answer {
            self.observe_error(error);
        }
        answer
    }

    /// Gives it back. Nothing may be open on it.
    pub(crate) fn release(mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.discarded && !connection.is_in_transaction() && !self.pool.closed.load(Ordering::Acquire) {
            let now = self.pool.runtime.elapsed();
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push((connection, now));
        }
    }
}

fn connect_kind(error: &sqlx::Error) -> ErrorKind {
    match error.as_database_error().and_then(|error| error.code()).as_deref() {
        // no such role, wrong password, no such database, not allowed to connect
        Some("28P01" | "28000" | "3D000" | "42501") => ErrorKind::Backend,
        _ => match error {
            sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => ErrorKind::Backend,
            _ => ErrorKind::Transient,
        },
    }
}

fn connect_options(address: &Address, options: &PostgresOptions, purpose: Purpose) -> PgConnectOptions {
    let connect = address.connect.clone().application_name(&options.application_name).disable_statement_logging();
    if options.pooler {
        return connect.statement_cache_capacity(0).extra_float_digits(None);
    }
    let limit = match purpose {
        Purpose::Work => options.statement_limit,
        Purpose::Own => options.transaction_limit,
    };
    let mut settings = vec![
        ("statement_timeout", limit.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", options.transaction_limit.as_millis().to_string()),
        ("synchronous_commit", if options.volatile { "off" } else { "on" }.to_owned()),
    ];
    if purpose == Purpose::Work {
        // Our statements know their plans: probe an index for each element of the arrays. Statistics of a table that was
        // empty a minute ago say otherwise, so scans of whole tables are off here, and a plan is made once. (Not by a
        // high price of pages in sequence: that is also what the planner thinks an index in the table's order reads.)
        settings.extend([
            ("default_transaction_isolation", "read committed".to_owned()),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("random_page_cost", "1".to_owned()),
            ("jit", "off".to_owned()),
        ]);
    }
    connect.statement_cache_capacity(MAX_PREPARED_STATEMENTS).options(settings)
}
