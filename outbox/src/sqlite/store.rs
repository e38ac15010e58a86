use super::{
    apply::{Commit, enlist},
    bells::{Place, Seen},
    open::Inner,
    options::SqliteOptions,
    own::NOW,
    sql,
    tx::{Desk, Notes},
    writer::Job,
};
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
    pub(crate) inner: Arc<Inner>,
    pub(crate) seen: Arc<Seen>,
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
        let inner = Inner::open(url, options).await?;
        Ok(Arc::new(Self { inner, seen: Arc::default(), closed: Arc::default() }))
    }

    /// The open file, unless this handle was closed.
    pub(crate) fn open_inner(&self) -> Result<&Inner> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.inner.gone());
        }
        Ok(&self.inner)
    }

    async fn open_transaction(&self) -> Result<Box<dyn Transaction>> {
        let (reply, lent) = tokio::sync::oneshot::channel();
        self.open_inner()?.send(Job::Own(reply)).await?;
        let transaction = lent.await.map_err(|_| self.inner.gone())??;
        Ok(Box::new(transaction))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn database(&self) -> &DatabaseId {
        &self.inner.id
    }

    fn committers(&self) -> usize {
        1
    }

    async fn migrate(&self) -> Result<()> {
        self.open_inner()?.migrate().await
    }

    async fn check(&self) -> Result<()> {
        self.open_inner()?.check().await
    }

    async fn now(&self) -> Result<Timestamp> {
        let inner = self.open_inner()?;
        let what = "ask sqlite for the time";
        let rows = inner
            .read
            .run(&inner.shared, async |connection| {
                sql::script(connection, NOW).await.map_err(super::error::doing(what))
            })
            .await?;
        rows.first().map_or(Ok(0), |row| sql::column(row, 0)).map(Timestamp)
    }

    async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        self.open_inner()?.load(request).await
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        let units = batch.units.len();
        let reply = match self.open_inner() {
            Ok(inner) => inner.commit(batch).await,
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
        let inner = self.open_inner()?;
        let Some(connection) = connection.downcast_mut::<SqliteConnection>() else {
            return Err(Error::invalid(format!(
                "a send was to join a transaction of another database than {}: it needs a sqlx::SqliteConnection",
                inner.id.0
            )));
        };
        let what = "ask sqlite for the time";
        let rows = sql::script(connection, NOW).await.map_err(super::error::doing(what))?;
        let now = rows.first().map_or(Ok(0), |row| sql::column(row, 0)).map(Timestamp)?;
        // the caller commits: whoever waits for rows learns of them as of another process's
        let mut notes = Notes::default();
        let mut desk = Desk { connection, shared: &inner.shared, now, notes: &mut notes };
        enlist(&mut desk, owner, joined, &sends).await
    }

    async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        self.open_inner()?.due(query).await
    }

    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_inner()?.outbox_orphans(owner, limit).await
    }

    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_inner()?.outbox_own(owner, after, limit).await
    }

    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        self.open_inner()?.outbox_delete(sent).await
    }

    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        self.open_inner()?.outbox_dead_letter(owner, rows).await
    }

    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        self.open_inner()?.count_attempt(endpoint, handler, message).await
    }

    async fn wait_due(&self, endpoint: &str, at_most: Duration) {
        let place = Place::Due(Arc::from(endpoint));
        self.inner.shared.bells.wait(&place, &self.seen, at_most, self.inner.shared.runtime()).await;
    }

    async fn prune(&self, horizon: Duration) -> Result<u64> {
        self.open_inner()?.prune(horizon).await
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
            self.inner.close().await;
        }
    }
}

impl Inner {
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
