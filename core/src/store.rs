//! The port of a database that holds saga state, inbox, outbox, timers and dead letters.

use crate::{
    CommitBatch, CommitReply, Envelope, InstanceId, Leases, MessageId, OffsetStore, OutboxId, Outgoing, Owner, Queues,
    Result, RowGate, RowTable, SagaAddress, Timestamp, Transaction,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{any::Any, sync::Arc, time::Duration};

/// A database for an endpoint's state.
///
/// # The contract of `commit`
///
/// Each unit is atomic, has one outcome, and is durable when its outcome is Applied.
///
/// - (a) Units of one saga key form a chain: each builds on the state that the one before it wrote. The store may fold
///   them into one write. A chain that fails as a whole is tried again unit by unit.
/// - (b) No two units of a batch share a gate (the caller sees to it).
/// - (c) A saga write compares kind, key, instance and version.
/// - (d) A unit with its own SQL is committed by [`Transaction::finish`], never here.
/// - (e) `sent` ids on a failed transaction are reported as not cleaned.
/// - (f) One batch carries several saga kinds, and units without a saga.
/// - (g) After an unknown outcome nothing may be dispatched from memory; the gate tells what happened.
/// - (h) A gate that is taken, a stale saga or a lost fence affect that unit, and the later ones of its chain, and no
///   other. The later ones are Stale even if the version that they expect happens to be there: somebody else wrote it,
///   and what they build on never was.
/// - (i) A store may open all gates of a batch before anything else. So a unit whose gate is a timer is not in one batch
///   with an earlier one that changes this saga's timers (the caller sees to it).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Which database this is. A transport with the same one is *joined*: its queue rows are gates.
    fn database(&self) -> &DatabaseId;

    /// How many committers may run at once: 1 where the database has one writer.
    fn committers(&self) -> usize;

    /// Creates or upgrades the schema. Safe to call from many processes at once, and without effect when up to date.
    async fn migrate(&self) -> Result<()>;

    /// Refuses a database whose schema is missing or of another version, or whose settings do not sync its commits.
    async fn check(&self) -> Result<()>;

    /// The database's clock.
    async fn now(&self) -> Result<Timestamp>;

    /// Everything the scheduler needs to know before it runs the units at hand, in one round trip.
    async fn load(&self, request: LoadRequest) -> Result<LoadReply>;

    /// Applies units. See the contract above. Does not fail as a whole: a failure is every unit's outcome.
    async fn commit(&self, batch: CommitBatch) -> CommitReply;

    /// Opens a transaction for a handler's own SQL. Waits its turn where the database has one writer. Bounded: one that
    /// is held longer than the store's limit (default 2 s) is rolled back, and its unit runs again.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;

    /// Records sends inside the caller's own open transaction, given as the backend's connection
    /// (`&mut SqliteConnection`, `&mut PgConnection`). They leave when that transaction commits.
    async fn enlist(
        &self,
        connection: &mut (dyn Any + Send),
        owner: &Owner,
        joined: bool,
        sends: Vec<Outgoing>,
    ) -> Result<()>;

    /// Rows of the due tables whose time has come, in shards that this node owns, in the order of their due times.
    async fn due(&self, query: &DueQuery) -> Result<DuePage>;

    /// Takes over outbox rows of this endpoint whose owner is gone (its lease has lapsed, or it left), oldest first.
    async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>>;

    /// Outbox rows that this node owns, oldest first, after an id: what an unknown commit or an enlisted transaction
    /// left there. Leaves out rows that are behind an unsent row of the same order key with another owner.
    async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>>;

    /// Removes confirmed outbox rows when there is no commit to ride on.
    async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()>;

    /// Turns outbox rows that can never be sent into dead letters of the endpoint.
    async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()>;

    /// Counts an attempt at (handler, message), durably, and returns how many there are now.
    async fn count_attempt(&self, endpoint: &str, handler: &str, message: MessageId) -> Result<u32>;

    /// Wakes [`due`](Store::due) readers: returns when a row may have become due sooner than was known, or after
    /// `at_most`. A hint; polling finds what it missed. Readers look at least once a second, so a store need wake nobody
    /// for a row that is due a second from now, or later.
    async fn wait_due(&self, endpoint: &str, at_most: Duration);

    /// Drops what retention allows: inbox rows of days past the horizon, kept sagas, idle attempts. Returns how many rows.
    async fn prune(&self, horizon: Duration) -> Result<u64>;

    /// Membership and shard ownership.
    fn leases(&self) -> Arc<dyn Leases>;

    /// The progress of endpoints in logs; `None` if the store keeps none.
    fn offsets(&self) -> Option<Arc<dyn OffsetStore>>;

    /// For how long it can hold back a message that a unit sends [later](crate::UnitOfWork::delayed_sends); `None`: not at all.
    fn longest_delay(&self) -> Option<Duration> {
        None
    }

    /// The same database as a transport, if it can be one.
    fn queues(&self) -> Option<Arc<dyn Queues>>;

    /// Looking and operating from outside.
    fn admin(&self) -> Arc<dyn crate::StoreAdmin>;

    /// Finishes what is under way and closes connections. Later calls fail as [closed](crate::Error::is_closed).
    async fn close(&self);
}

/// Names a database, so that two URLs that lead to the same one are known to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseId(pub String);

/// See [`Store::load`].
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// (handler, message): is there an inbox row already?
    pub probes: Vec<(Arc<str>, MessageId)>,
    /// Sagas by key, by alias or by instance.
    pub sagas: Vec<SagaLookup>,
    /// Ordered endpoints: (handler, order key) pairs that a row of `retry` or `parked` may block.
    pub blocked_keys: Vec<(Arc<str>, String)>,
}

/// How a message finds its saga.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SagaLookup {
    /// By its correlation value.
    Key {
        /// `endpoint/saga`.
        kind: Arc<str>,
        /// The correlation value.
        key: String,
    },
    /// By another value that was added while it ran.
    Alias {
        /// `endpoint/saga`.
        kind: Arc<str>,
        /// The alias's name.
        alias: String,
        /// Its value.
        value: String,
    },
    /// A certain life of it: a timeout, or a reply.
    Instance(SagaAddress),
}

/// See [`Store::load`]. Each list has one entry per entry of the request, in order.
#[derive(Clone, Debug, Default)]
pub struct LoadReply {
    /// Whether the gate is already claimed.
    pub probes: Vec<bool>,
    /// The saga, if a row exists; also one that is completed and kept.
    pub sagas: Vec<Option<SagaRow>>,
    /// Whether an earlier message of the key is being retried or parked.
    pub blocked_keys: Vec<bool>,
}

/// A saga as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaRow {
    /// `endpoint/saga`.
    pub kind: Arc<str>,
    /// The correlation value.
    pub key: String,
    /// This life.
    pub instance: InstanceId,
    /// How many units it has applied.
    pub version: i64,
    /// Its encoded state.
    pub state: Bytes,
    /// The version of the state's schema.
    pub schema: u32,
    /// Who started it.
    pub origin: Option<Bytes>,
    /// Whether it has completed and is only kept for a time.
    pub completed: bool,
}

impl SagaRow {
    /// Its address.
    pub fn address(&self) -> SagaAddress {
        SagaAddress { kind: self.kind.to_string(), key: self.key.clone(), instance: self.instance }
    }
}

/// See [`Store::due`].
#[derive(Clone, Debug)]
pub struct DueQuery {
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// Which table; not the queue.
    pub table: RowTable,
    /// The shards that this node owns.
    pub shards: Vec<u16>,
    /// Continue after this row of an earlier page.
    pub after: Option<(Timestamp, i64)>,
    /// Most rows.
    pub limit: usize,
}

/// See [`Store::due`].
#[derive(Clone, Debug, Default)]
pub struct DuePage {
    /// The rows, by (due, id).
    pub rows: Vec<DueRow>,
    /// How long until the next row of this table and these shards is due, as far as known; `None` if there is none.
    pub next: Option<Duration>,
}

/// A row that is a delivery.
#[derive(Clone, Debug)]
pub struct DueRow {
    /// Its gate.
    pub gate: RowGate,
    /// When it was due.
    pub due: Timestamp,
    /// Its shard.
    pub shard: u16,
    /// The one handler that it is for.
    pub handler: Arc<str>,
    /// How often it was tried before.
    pub attempts: u32,
    /// Parked for its turn, or retried, under this order key.
    pub key: Option<String>,
    /// The message.
    pub message: Envelope,
}

/// An outbox row.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Its id; ids of one owner grow in commit order.
    pub id: OutboxId,
    /// The message.
    pub outgoing: Outgoing,
}

/// Under which key a message is parked that looks for its saga by an alias: stores make it due when the alias is added.
pub fn alias_key(alias: &str, value: &str) -> String {
    format!("{alias}={value}")
}
