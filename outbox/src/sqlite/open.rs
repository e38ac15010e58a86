//! Opening a file: one writer task and a few reading connections per file and process.

use super::{
    bells::Bells,
    checkpoint,
    error::{doing, failed, is_busy},
    options::{self, SqliteOptions},
    process::ProcessLock,
    writer::{self, Job},
};
use sagabus_core::{DatabaseId, Error, ErrorKind, Result, Runtime, Task};
use sqlx::{
    ConnectOptions as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Statements that one connection keeps prepared: about 50 of ours in nine sizes.
const STATEMENTS: usize = 512;
/// Rows that the driver's thread may be ahead of us.
const ROWS_AHEAD: usize = 512;
/// Jobs that wait for the writer.
const JOBS: usize = 4096;

/// What the writer task and the handles share.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) options: SqliteOptions,
    pub(crate) bells: Bells,
    pub(crate) process: ProcessLock,
    /// Queues that are known to exist. They are never undeclared, so this needs no checking.
    pub(crate) queues: Mutex<HashSet<Arc<str>>>,
    /// Until when (by the runtime's clock, in microseconds) other processes are known to use the file.
    pub(crate) contended: AtomicU64,
    pub(crate) log: checkpoint::Log,
}

/// A file that this process has open.
pub(crate) struct Inner {
    pub(crate) id: DatabaseId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: mpsc::Sender<Job>,
    /// See `checkpoint`.
    mover: Mutex<Option<Task<()>>>,
    /// For `load`.
    pub(crate) load: Reader,
    /// For everything else that reads.
    pub(crate) read: Reader,
    pub(crate) closed: AtomicBool,
    pub(crate) handles: AtomicUsize,
}

/// A connection that only reads. Made when first needed, and again after a failure.
pub(crate) struct Reader(tokio::sync::Mutex<Option<SqliteConnection>>);

impl Shared {
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
        let what = format!("open {}", self.path.display());
        let runtime = self.runtime();
        let start = runtime.elapsed();
        loop {
            match options.connect().await {
                Ok(connection) => return Ok(connection),
                // changing into WAL does not wait for others by itself
                Err(error) if is_busy(&error) && runtime.elapsed() - start < self.options.busy_limit => {
                    runtime.sleep(Duration::from_millis(1) + runtime.jitter(Duration::from_millis(10))).await;
                }
                Err(error) => return Err(failed(&what, error)),
            }
        }
    }

    async fn connect_reader(&self) -> Result<SqliteConnection> {
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

impl Reader {
    fn new() -> Self {
        Self(tokio::sync::Mutex::new(None))
    }

    /// Runs a reading; a connection on which one failed or was given up is not used again.
    pub(crate) async fn run<T>(
        &self,
        shared: &Shared,
        reading: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.0.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => shared.connect_reader().await?,
        };
        let answer = reading(&mut connection).await?;
        *slot = Some(connection);
        Ok(answer)
    }

    async fn close(&self) {
        use sqlx::Connection as _;
        if let Some(connection) = self.0.lock().await.take() {
            // only reads went over it
            let _ = connection.close().await;
        }
    }
}

fn registry() -> &'static Mutex<BTreeMap<PathBuf, Weak<Inner>>> {
    static OPEN: OnceLock<Mutex<BTreeMap<PathBuf, Weak<Inner>>>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

impl Inner {
    /// The file that this process has open already under this name, or a new one.
    pub(crate) async fn open(url: &str, options: SqliteOptions) -> Result<Arc<Self>> {
        let (path, create) = options::parse(url)?;
        if !create && !path.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("the sqlite file {} does not exist", path.display())));
        }
        let path = options::canonical(&path)?;
        options::check_filesystem(path.parent().unwrap_or(Path::new(".")))?;
        let isolated = options.isolated;
        if !isolated && let Some(inner) = Self::find(&path, &options)? {
            return Ok(inner);
        }
        let process = ProcessLock::take(&path, &options.runtime)?;
        let shared = Arc::new(Shared {
            path: path.clone(),
            create,
            options,
            bells: Bells::default(),
            process,
            queues: Mutex::default(),
            contended: AtomicU64::new(0),
            log: checkpoint::Log::default(),
        });
        let connection = shared.connect_writer().await?;
        if isolated {
            return Ok(Self::start(shared, connection));
        }
        let mut open = registry().lock().unwrap_or_else(PoisonError::into_inner);
        // somebody else may have opened it meanwhile
        if let Some(inner) = live(&open, &path) {
            return Ok(inner);
        }
        let inner = Self::start(shared, connection);
        open.retain(|_, inner| inner.strong_count() > 0);
        open.insert(path, Arc::downgrade(&inner));
        Ok(inner)
    }

    fn start(shared: Arc<Shared>, connection: SqliteConnection) -> Arc<Self> {
        let (jobs, received) = mpsc::channel(JOBS);
        shared.runtime().spawn(writer::run(received, connection, Arc::clone(&shared)));
        let mover = shared.runtime().spawn(checkpoint::run(Arc::clone(&shared), jobs.downgrade()));
        Arc::new(Self {
            id: DatabaseId(format!("sqlite:{}", shared.path.display())),
            shared,
            jobs,
            mover: Mutex::new(Some(mover)),
            load: Reader::new(),
            read: Reader::new(),
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
        })
    }

    fn find(path: &Path, options: &SqliteOptions) -> Result<Option<Arc<Self>>> {
        let Some(inner) = live(&registry().lock().unwrap_or_else(PoisonError::into_inner), path) else {
            return Ok(None);
        };
        if inner.shared.options.volatile != options.volatile {
            inner.handles.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::invalid(format!(
                "{} is open in this process with another durability; open it volatile everywhere or nowhere",
                path.display()
            )));
        }
        Ok(Some(inner))
    }

    /// One handle less; with the last one the file is closed.
    pub(crate) async fn close(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        self.closed.store(true, Ordering::SeqCst);
        let (done, finished) = tokio::sync::oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            // an error says that the writer is gone already
            let _ = finished.await;
        }
        let mover = self.mover.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mover) = mover {
            // it has closed its connection, or its runtime is gone
            mover.join().await;
        }
        self.load.close().await;
        self.read.close().await;
    }
}

/// The open file under a name, if it is still usable, with one handle more.
fn live(open: &BTreeMap<PathBuf, Weak<Inner>>, path: &Path) -> Option<Arc<Inner>> {
    let inner = open.get(path)?.upgrade()?;
    // closed, or the runtime on which its writer ran is gone
    if inner.closed.load(Ordering::SeqCst) || inner.jobs.is_closed() {
        return None;
    }
    inner.handles.fetch_add(1, Ordering::SeqCst);
    Some(inner)
}
