//! Opening a file: one writer task and a few reading connections per file and process.

use super::{
    checkpoint,
    job::Job,
    op::{Op, Write, pending},
    options::{self, SqliteOptions},
    process_lock::ProcessLock,
    reader::Reader,
    shared::FileState,
    wal_log::WalProgress,
    write_context::Tx,
    writer,
};
use crate::wakeups::Wakeups;
use futures::future::BoxFuture;
use sagabus_core::{DatabaseId, Error, ErrorKind, Result, Task};
use sqlx::SqliteConnection;
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait for the writer.
const JOBS: usize = 4096;

/// A file that this process has open.
pub(crate) struct OpenFile {
    pub(crate) id: DatabaseId,
    pub(crate) shared: Arc<FileState>,
    pub(crate) jobs: mpsc::Sender<Job>,
    /// See `checkpoint`.
    checkpointer: Mutex<Option<Task<()>>>,
    /// For `load`.
    pub(crate) load: Reader,
    /// For everything else that reads.
    pub(crate) read: Reader,
    pub(crate) closed: AtomicBool,
    pub(crate) handles: AtomicUsize,
}

fn registry() -> &'static Mutex<BTreeMap<PathBuf, Weak<OpenFile>>> {
    static OPEN: OnceLock<Mutex<BTreeMap<PathBuf, Weak<OpenFile>>>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

impl OpenFile {
    /// The file that this process has open already under this name, or a new one.
    pub(crate) async fn open(url: &str, options: SqliteOptions) -> Result<Arc<Self>> {
        let (path, create) = options::parse(url)?;
        if !create && !path.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("the sqlite file {} does not exist", path.display())));
        }
        let path = options::canonical(&path)?;
        options::check_filesystem(path.parent().unwrap_or(Path::new(".")))?;
        let isolated = options.isolated;
        if !isolated && let Some(file) = Self::find(&path, &options)? {
            return Ok(file);
        }
        let process = ProcessLock::take(&path, &options.runtime)?;
        let shared = Arc::new(FileState {
            path: path.clone(),
            create,
            options,
            wakeups: Wakeups::default(),
            process,
            queues: Mutex::default(),
            contended: AtomicU64::new(0),
            wal: WalProgress::default(),
        });
        let connection = shared.connect_writer().await?;
        if isolated {
            return Ok(Self::start(shared, connection));
        }
        let mut open = registry().lock().unwrap_or_else(PoisonError::into_inner);
        // another task may have opened it meanwhile
        if let Some(file) = find_open(&open, &path) {
            return Ok(file);
        }
        let file = Self::start(shared, connection);
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(path, Arc::downgrade(&file));
        Ok(file)
    }

    fn start(shared: Arc<FileState>, connection: SqliteConnection) -> Arc<Self> {
        let (jobs, received) = mpsc::channel(JOBS);
        shared.runtime().spawn(writer::run(received, connection, Arc::clone(&shared)));
        let checkpointer = shared.runtime().spawn(checkpoint::run(Arc::clone(&shared), jobs.downgrade()));
        Arc::new(Self {
            id: DatabaseId(format!("sqlite:{}", shared.path.display())),
            shared,
            jobs,
            checkpointer: Mutex::new(Some(checkpointer)),
            load: Reader::new(),
            read: Reader::new(),
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
        })
    }

    fn find(path: &Path, options: &SqliteOptions) -> Result<Option<Arc<Self>>> {
        let Some(file) = find_open(&registry().lock().unwrap_or_else(PoisonError::into_inner), path) else {
            return Ok(None);
        };
        if file.shared.options.volatile != options.volatile {
            file.handles.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::invalid(format!(
                "{} is open in this process with another durability; open it volatile everywhere or nowhere",
                path.display()
            )));
        }
        Ok(Some(file))
    }

    /// One handle less; with the last one the file is closed.
    pub(crate) async fn close(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        self.closed.store(true, Ordering::SeqCst);
        let (done, finished) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            // an error says that the writer is gone already
            let _ = finished.await;
        }
        let checkpointer = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(checkpointer) = checkpointer {
            // it has closed its connection, or its runtime is gone
            checkpointer.join().await;
        }
        self.load.close().await;
        self.read.close().await;
    }
}

impl OpenFile {
    /// Hands an operation to the writer and waits for its commit.
    pub(crate) async fn submit<O: Op>(&self, op: O) -> Result<O::Answer> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Op(pending(op, reply))).await?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unknown, format!("the writer of {} ended", self.id.0)))?
    }

    /// The same for a closure.
    pub(crate) fn write<A: Send + 'static>(
        &self,
        op: impl for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<A>> + Send + 'static,
    ) -> impl Future<Output = Result<A>> + Send {
        self.submit(Write(op))
    }

    pub(crate) async fn send(&self, job: Job) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.closed_error());
        }
        self.jobs.send(job).await.map_err(|_| self.closed_error())
    }

    pub(crate) fn closed_error(&self) -> Error {
        Error::closed(format!("the store {} is closed", self.id.0))
    }
}

/// The open file under a name, if it is still usable, with one handle more.
fn find_open(open: &BTreeMap<PathBuf, Weak<OpenFile>>, path: &Path) -> Option<Arc<OpenFile>> {
    let file = open.get(path)?.upgrade()?;
    // closed, or the runtime on which its writer ran is gone
    if file.closed.load(Ordering::SeqCst) || file.jobs.is_closed() {
        return None;
    }
    file.handles.fetch_add(1, Ordering::SeqCst);
    Some(file)
}
