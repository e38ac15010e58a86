//! The store's port, on what the other files do.

use super::{
    open::OpenSchema,
    options::PostgresOptions,
    sql::{NOW, Reader, Sql},
};
use crate::wakeups::{LastSeen, WakeKey};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, DatabaseId, DuePage, DueQuery, Error, Leases, LoadReply, LoadRequest, MessageId,
    OffsetStore, OutboxId, OutboxRow, Outgoing, Owner, Queues, Result, Store, StoreAdmin, Timestamp, Transaction,
};
use sqlx::PgConnection;
use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A store in one schema of a PostgreSQL database, versions 14 to 18.
///
/// Open it once per process and schema; it is cheap to share. Stores opened with the same URL share connections.
pub struct PostgresStore {
    pub(crate) inner: Arc<OpenSchema>,
    pub(crate) last_seen: Arc<LastSeen>,
    closed: Arc<AtomicBool>,
}

impl PostgresStore {
    /// Connects to `postgres://user:password@host:port/database`; the driver's parameters (`sslmode`, …) and `schema` may
    /// follow. The tables come with [`migrate`](Store::migrate).
    ///
    /// # Errors
    /// Invalid for a URL or a schema name that cannot be used; transient while the server cannot be reached. No error shows
    /// the URL, which may hold a password.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self> {
        let inner = OpenSchema::open(url, options).await?;
        Ok(Self { inner, last_seen: Arc::default(), closed: Arc::default() })
    }

    /// A clone of this handle.
    pub(crate) fn clone_handle(&self) -> Self {
        Self { inner: self.inner.clone(), last_seen: self.last_seen.clone(), closed: self.closed.clone() }
    }

    pub(crate) fn open_inner(&self) -> Result<&Arc<OpenSchema>> {
        if self.closed.load(Ordering::Acquire) || self.inner.closed.load(Ordering::Acquire) {
            return Err(self.inner.work.closed_error());
        }
        Ok(&self.inner)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open_inner().is_ok()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({:?})", self.inner.address)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn database(&self) -> &DatabaseId {
        &self.inner.id
    }

    fn committers(&self) -> usize {
        self.inner.options.committers.max(1)
    }

    async fn migrate(&self) -> Result<()> {
        self.open_inner()?.migrate().await
    }

    async fn check(&self) -> Result<()> {
        self.open_inner()?.check().await
    }

    async fn now(&self) -> Result<Timestamp> {
        let rows = self.open_inner()?.read("ask postgres for the time", Sql::new(format!("select {NOW}"))).await?;
        match rows.first() {
            Some(row) => Reader::new(row).time(),
            None => Err(Error::invalid("postgres told no time")),
        }
    }

    async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        self.open_inner()?.load(&request).await
    }

    async fn commit(&self, batch: CommitBatch) -> CommitReply {
        match self.open_inner() {
            Ok(inner) => inner.commit(&batch).await,
            Err(error) => CommitReply::failed(batch.units.len(), &error),
        }
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(self.open_inner()?.begin().await?))
    }

    async fn enlist(
        &self,
        connection: &mut (dyn Any + Send),
        owner: &Owner,
        joined: bool,
        sends: Vec<Outgoing>,
    ) -> Result<()> {
        let Some(connection) = connection.downcast_mut::<PgConnection>() else {
            return Err(Error::invalid("the postgres store enlists in a `PgConnection` only"));
        };
        self.open_inner()?.enlist(connection, owner, joined, &sends).await
    }

    async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        self.open_inner()?.due(query, &self.last_seen).await
    }

    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_inner()?.outbox_orphans(owner, limit).await
    }

    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        self.open_inner()?.outbox_own(owner, after, limit).await
    }

    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        self.open_inner()?.forget_sent(sent).await
    }

    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        self.open_inner()?.outbox_dead_letter(owner, rows).await
    }

    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32> {
        self.open_inner()?.count_attempt(endpoint, handler, message).await
    }

    async fn wait_due(&self, endpoint: &str, at_most: Duration) {
        if self.is_open() {
            self.inner.wait(&WakeKey::Due(endpoint.into()), &self.last_seen, at_most).await;
        }
    }

    async fn prune(&self, horizon: Duration) -> Result<u64> {
        self.open_inner()?.prune(horizon).await
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone_handle())
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        Some(Arc::new(self.clone_handle()))
    }

    fn queues(&self) -> Option<Arc<dyn Queues>> {
        Some(Arc::new(self.clone_handle()))
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(self.clone_handle())
    }

    async fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.inner.close().await;
        }
    }
}
