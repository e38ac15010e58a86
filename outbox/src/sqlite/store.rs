use super::{
    commit::{Commit, enlist},
    job::Job,
    open::OpenFile,
    options::SqliteOptions,
    sql,
    write_context::{Announcements, WriteContext},
};
use crate::wakeups::{LastSeen, WakeKey};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, DatabaseId, DuePage, DueQuery, Error, Leases, LoadReply, LoadRequest, MessageId,
    OffsetStore, OutboxId, OutboxRow, Outgoing, Owner, Queues, Result, Store, StoreAdmin, Timestamp, Transaction,
};
use sqlx::SqliteConnection;
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A store in one SQLite file. Cloning shares the handle.
///
/// All stores on the same file in one process share one writer task, so that their commits share syncs too.
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) last_seen: Arc<LastSeen>,
    closed: Arc<AtomicBool>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("database", &sagabus_core::Store::database(self)).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens `sqlite://path` (or `sqlite:path`), creating the file unless the URL says `?mode=rw`.
    pub async fn open(url: &str, options: SqliteOptions) -> Result<Arc<Self>> {
        let file = OpenFile::open(url, options).await?;
        Ok(Arc::new(Self { file, last_seen: Arc::default(), closed: Arc::default() }))
    }

    /// The open file, unless this handle was closed.
    pub(crate) fn open_file(&self) -> Result<&OpenFile> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.file.closed_error());
        }
        Ok(&self.file)
    }

    async fn open_transaction(&self) -> Result<Box<dyn Transaction>> {
        let (reply, lent) = tokio::sync::oneshot::channel();
        self.open_file()?.send(Job::Own(reply)).await?;
        let transaction = lent.await.map_err(|_| self.file.closed_error())??;
        Ok(Box::new(transaction))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn database(&self) -> &DatabaseId {
        &self.file.id
    }

    fn committers(&self) -> usize {
        1
    }

    async fn migrate(&self) -> Result<()> {
        self.open_file()?.migrate().await
    }

    async fn check(&self) -> Result<()> {
        self.open_file()?.check().await
    }

    async fn now(&self) -> Result<Timestamp> {
        let file = self.open_file()?;
        file.read.run(&file.shared, async |connection| sql::now(connection).await).await
    }

    async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        self.open_file()?.load(request).await
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        let units = batch.units.len();
        let reply = match self.open_file() {
            Ok(file) => file.commit(batch).await,
            Err(error) => Err(error),
        };
        reply.unwrap_or_else(|error| CommitReply::failed(units, &error))
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        self.open_transaction().await
    }

    async fn enlist(
        &self,
        connection: &mut (dyn Any + Send),
        owner: &Owner,
        joined: bool,
        sends: Vec<Outgoing>,
    ) -> Result<()> {
        let file = self.open_file()?;
        let Some(connection) = connection.downcast_mut::<SqliteConnection>() else {
            return Err(Error::invalid(format!(
                "a send was to join a transaction of another database than {}: it needs a sqlx::SqliteConnection",
                file.id.0
            )));
        };
        let now = sql::now(connection).await?;
        // the caller commits: waiting readers learn of the rows as of another process's
        let mut announcements = Announcements::default();
        let mut context = WriteContext { connection, shared: &file.shared, now, announcements: &mut announcements };
        enlist(&mut context, owner, joined, &sends).await
    }

    async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        self.open_file()?.due(query).await
    }

    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_file()?.outbox_orphans(owner, limit).await
    }

    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_file()?.outbox_own(owner, after, limit).await
    }

    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        self.open_file()?.outbox_delete(sent).await
    }

    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        self.open_file()?.outbox_dead_letter(owner, rows).await
    }

    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        self.open_file()?.count_attempt(endpoint, handler, message).await
    }

    async fn wait_due(&self, endpoint: &str, at_most: Duration) {
        let key = WakeKey::Due(Arc::from(endpoint));
        self.file.shared.wakeups.wait(&key, &self.last_seen, at_most, self.file.shared.runtime()).await;
    }

    async fn prune(&self, horizon: Duration) -> Result<u64> {
        self.open_file()?.prune(horizon).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.clone()))
    }

    fn queues(&self) -> Option<Arc<dyn Queues>> {
        Some(Arc::new(self.clone()))
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.clone())
    }

    async fn close(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.file.close().await;
        }
    }
}

impl OpenFile {
    async fn commit(&self, batch: CommitBatch) -> Result<CommitReply> {
        if sagabus_core::sabotage::active("inbox-apart") {
            return self.commit_inbox_apart(batch).await;
        }
        self.submit(Commit(batch)).await
    }

    /// The planted bug: the inbox rows commit first, and for themselves.
    async fn commit_inbox_apart(&self, mut batch: CommitBatch) -> Result<CommitReply> {
        use sagabus_core::{Gate, Outcome, UnitOfWork};
        let gates = batch.units.iter().map(|unit| {
            let gate = if unit.gate == Gate::Inbox { Gate::Inbox } else { Gate::None };
            UnitOfWork::new(unit.handler.clone(), unit.message_id, gate)
        });
        let apart = CommitBatch { units: gates.collect(), sent: Vec::new(), owner: batch.owner.clone(), joined: true };
        let first = self.submit(Commit(apart)).await?;
        let fresh: Vec<bool> = first.outcomes.iter().map(Outcome::is_applied).collect();
        let mut keep = fresh.iter();
        batch.units.retain(|_| keep.next().copied().unwrap_or(false));
        for unit in batch.units.iter_mut().filter(|unit| unit.gate == Gate::Inbox) {
            unit.gate = Gate::None;
        }
        let second = self.submit(Commit(batch)).await?;
        let mut rest = second.outcomes.into_iter();
        let merge = |(fresh, first): (&bool, Outcome)| if *fresh { rest.next().unwrap_or(first) } else { first };
        Ok(CommitReply { outcomes: fresh.iter().zip(first.outcomes).map(merge).collect(), cleaned: second.cleaned })
    }
}
