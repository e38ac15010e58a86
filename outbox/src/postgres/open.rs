//! Opening a database: pools, wake-ups and caches of one schema, shared by the stores of a process.

use super::{
    attempt_queue::Attempts,
    dedup_partitions::DedupPartitions,
    error::doing,
    listener::Listener,
    notify::Notifier,
    options::{Address, PostgresOptions},
    own_sql::Sharing,
    pool::{Conn, Pool, Purpose},
    sql::{Reader, Sql},
};
use crate::wakeups::{LastSeen, WakeKey, Wakeups};
use sagabus_core::{DatabaseId, Result, Runtime};
use sqlx::postgres::PgRow;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A schema that this process has open.
pub(crate) struct OpenSchema {
    pub(crate) id: DatabaseId,
    pub(crate) address: Address,
    pub(crate) options: PostgresOptions,
    /// `"schema".`, as it stands before a table's name.
    pub(crate) s: String,
    pub(crate) work: Arc<Pool>,
    pub(crate) own: Arc<Pool>,
    pub(crate) sharing: Sharing,
    pub(crate) partitions: DedupPartitions,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) listener: Listener,
    pub(crate) notifier: Notifier,
    /// Numbers of queues that are known to exist. They are never undeclared, so this needs no checking.
    pub(crate) queues: RwLock<HashMap<Arc<str>, i32>>,
    /// When parked messages were last looked through for those whose saga has come, by endpoint.
    pub(crate) swept: Mutex<HashMap<Arc<str>, Duration>>,
    pub(super) attempts: Attempts,
    pub(crate) closed: AtomicBool,
    handles: AtomicUsize,
}

type Registry = Mutex<HashMap<(String, String, bool, bool), Weak<OpenSchema>>>;

fn registry() -> &'static Registry {
    static OPEN: OnceLock<Registry> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

impl OpenSchema {
    /// The schema that this process has open already under this URL, or a new one.
    pub(crate) async fn open(url: &str, options: PostgresOptions) -> Result<Arc<Self>> {
        let address = Address::parse(url, &options.schema)?;
        let name = (url.to_owned(), address.schema.name.clone(), options.volatile, options.pooler);
        let shared = options.shared;
        if shared && let Some(inner) = live(&name) {
            return Ok(inner);
        }
        let inner = Arc::new(Self::connect(address, options).await?);
        if shared {
            // another task may have opened it meanwhile
            if let Some(other) = live(&name) {
                return Ok(other);
            }
            let mut open = registry().lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|_, inner| inner.strong_count() > 0);
            open.insert(name, Arc::downgrade(&inner));
        }
        Ok(inner)
    }

    async fn connect(address: Address, options: PostgresOptions) -> Result<Self> {
        let work = Pool::new(&address, &options, Purpose::Work);
        let own = Pool::new(&address, &options, Purpose::Own);
        let mut conn = work.take().await?;
        let id = identify(&mut conn, &address).await?;
        let listener = Listener::new(&address, &options);
        let inner = Self {
            id,
            s: format!("{}.", address.schema.quoted()),
            notifier: Notifier::new(&address, &options, listener.process()),
            work,
            own,
            sharing: Sharing::new(options.transactions),
            address,
            options,
            partitions: DedupPartitions::default(),
            wakeups: Arc::default(),
            listener,
            queues: RwLock::default(),
            swept: Mutex::default(),
            attempts: Attempts::default(),
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
        };
        inner.load_partitions(&mut conn).await?;
        conn.release();
        Ok(inner)
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.options.runtime
    }

    /// Runs a reading, once more on another connection if the first one turns out to be dead.
    pub(crate) async fn read(&self, what: &str, sql: Sql) -> Result<Vec<PgRow>> {
        let mut again = Some(sql.clone());
        let mut sql = sql;
        loop {
            let mut conn = self.work.take().await?;
            let answer = sql.run(&mut conn).await;
            conn.release();
            match (answer, again.take()) {
                (Ok(rows), _) => return Ok(rows),
                (Err(error), Some(second)) if super::error::fault(&error) == super::error::Fault::Lost => sql = second,
                (Err(error), _) => return Err(super::error::failed(what, error)),
            }
        }
    }

    /// Runs one statement that changes something and is safe to repeat, with repetitions after a deadlock.
    pub(crate) async fn write(&self, what: &str, sql: Sql) -> Result<Vec<PgRow>> {
        let mut left = 8;
        loop {
            let mut conn = self.work.take().await?;
            let answer = sql.clone().run(&mut conn).await;
            conn.release();
            match answer {
                Ok(rows) => return Ok(rows),
                Err(error) if super::error::fault(&error) == super::error::Fault::Again && left > 0 => {
                    left -= 1;
                    self.runtime().sleep(self.runtime().jitter(Duration::from_millis(10))).await;
                }
                Err(error) => return Err(super::error::write_failed(what, error)),
            }
        }
    }

    /// Wakes the readers of these rows, in this process and in others.
    pub(crate) fn announce(&self, keys: &HashSet<WakeKey>) {
        keys.iter().for_each(|key| self.wakeups.notify(key));
        self.notifier.mark(keys);
    }

    /// Waits for a wake-up of these rows, or for `at_most`.
    pub(crate) async fn wait(&self, key: &WakeKey, last_seen: &LastSeen, at_most: Duration) {
        self.listener.start(&self.wakeups);
        last_seen.await_first(key);
        self.wakeups.wait(key, last_seen, at_most, self.runtime()).await;
    }

    /// Closes one handle; the last one closes the connections.
    pub(crate) async fn close(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        self.closed.store(true, Ordering::SeqCst);
        self.listener.close();
        self.wakeups.notify_all();
        self.notifier.close();
        self.own.close(self.options.transactions.max(1)).await;
        self.work.close(self.options.connections.max(self.options.committers + 2)).await;
    }
}

/// The open schema under a name, if it is still usable, with one handle more.
fn live(name: &(String, String, bool, bool)) -> Option<Arc<OpenSchema>> {
    let open = registry().lock().unwrap_or_else(PoisonError::into_inner);
    let inner = open.get(name)?.upgrade()?;
    if inner.closed.load(Ordering::SeqCst) {
        return None;
    }
    inner.handles.fetch_add(1, Ordering::SeqCst);
    Some(inner)
}

/// The name of a schema that does not depend on the way to it: the cluster's own identifier, the database's and the
/// schema's. Where a provider hides the first, the address has to do.
async fn identify(conn: &mut Conn, address: &Address) -> Result<DatabaseId> {
    let what = "ask postgres which database this is";
    let database = Sql::new("select oid::bigint from pg_database where datname=current_database()");
    let rows = database.run(conn).await.map_err(doing(what))?;
    let database: i64 = rows.first().map_or(Ok(0), |row| Reader::new(row).get())?;
    let cluster = Sql::new("select system_identifier::text from pg_control_system()").run(conn).await;
    let cluster = match cluster {
        Ok(rows) => rows.first().map(|row| Reader::new(row).get::<String>()).transpose()?,
        Err(error) if super::error::fault(&error) == super::error::Fault::Refused => None,
        Err(error) => return Err(super::error::failed(what, error)),
    };
    let cluster = cluster.unwrap_or_else(|| format!("{}:{}", address.connect.get_host(), address.connect.get_port()));
    Ok(DatabaseId(format!("postgres:{cluster}/{database}/{}", address.schema.name)))
}
