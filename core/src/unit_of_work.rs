//! What a handled message did, as a value.

use crate::{Envelope, Fence, InstanceId, MessageId, NodeId, TimerId};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// Everything that handling one message by one handler changed: the unit that commits once or not at all.
///
/// Handlers build it through their context; [`Store::commit`](crate::Store::commit) applies slices of it. Nothing in it
/// has happened yet.
#[derive(Clone, Debug)]
pub struct UnitOfWork {
    /// The handler within the endpoint: a saga's name, a service's or a function's.
    pub handler: Arc<str>,
    /// The message that was handled.
    pub message_id: MessageId,
    /// The guard that the unit claims, once.
    pub gate: Gate,
    /// What became of the message.
    pub disposition: Disposition,
    /// Ordered endpoints only: the shard lease that must still be held for the unit to apply.
    pub fence: Option<Fence>,
    /// The saga's new state.
    pub saga: Option<SagaWrite>,
    /// Messages that leave if and only if this unit commits.
    pub sends: Vec<Outgoing>,
    /// Whether every id in `sends` was drawn for this unit. Then its gate alone keeps them from being sent twice, and no
    /// queue has to remember them. Never with [`Gate::None`].
    pub fresh_ids: bool,
    /// Messages that leave after a delay; only where [`Store::longest_delay`](crate::Store::longest_delay) says so.
    pub delayed_sends: Vec<(Outgoing, Duration)>,
    /// Timers set and cancelled.
    pub timers: Vec<TimerChange>,
    /// Whether an attempt row was written for (handler, message) and is to be removed.
    pub has_attempt_row: bool,
}

impl UnitOfWork {
    /// A unit without effects.
    pub fn new(handler: Arc<str>, message_id: MessageId, gate: Gate) -> Self {
        Self {
            handler,
            message_id,
            gate,
            disposition: Disposition::Handled,
            fence: None,
            saga: None,
            sends: Vec::new(),
            fresh_ids: false,
            delayed_sends: Vec::new(),
            timers: Vec::new(),
            has_attempt_row: false,
        }
    }
}

/// The guard that makes a unit apply at most once. A unit claims its gate in the same transaction as its effects; a gate that
/// is already claimed means a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The inbox has no row for (endpoint, handler, message id) yet; the unit inserts it.
    Inbox,
    /// The row is still there with this token; the unit deletes it.
    Row(RowGate),
    /// Nothing: sends inside a caller's own transaction.
    None,
}

/// A row that is a delivery of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowGate {
    /// Where it lies.
    pub table: RowTable,
    /// Its id.
    pub id: i64,
    /// Its token: it changes when the row is moved, so that an earlier reading cannot claim the gate any more.
    /// Queue rows are never moved: theirs is 0.
    pub token: i64,
}

/// The tables whose rows are deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RowTable {
    /// A queue of the same database.
    Queue,
    /// A saga's timeout.
    Timer,
    /// A delayed retry.
    Retry,
    /// A message that waits for its saga, or for the earlier messages of its key.
    Parked,
    /// A dead letter that an operator sent again.
    DeadLetter,
}

impl RowTable {
    /// The tables other than the queue: what [`Store::due`](crate::Store::due) reads.
    pub const DUE: [RowTable; 4] = [RowTable::Timer, RowTable::Retry, RowTable::Parked, RowTable::DeadLetter];

    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            RowTable::Queue => "queue",
            RowTable::Timer => "timer",
            RowTable::Retry => "retry",
            RowTable::Parked => "parked",
            RowTable::DeadLetter => "dead_letter",
        }
    }
}

/// The result of handling. Each one claims the gate, so that a redelivery is settled and never runs beside its own copy.
#[derive(Clone, Debug)]
pub enum Disposition {
    /// Its effects are in the unit.
    Handled,
    /// It is tried again later: a row in `retry`.
    Deferred {
        /// The message.
        message: Arc<Envelope>,
        /// Ordered endpoints: the key that stays blocked meanwhile.
        key: Option<String>,
        /// How often it was tried so far.
        attempts: u32,
        /// When it is tried again, from the commit by the database's clock.
        delay: Duration,
        /// Why.
        reason: String,
    },
    /// It is a dead letter.
    DeadLettered {
        /// The message.
        message: Arc<Envelope>,
        /// How often it was tried.
        attempts: u32,
        /// Why, in a word or a line: `handler failed`, `unknown message type`.
        reason: String,
        /// The error and its causes, outermost first.
        detail: Vec<String>,
    },
    /// It waits: for a saga to be created, or on an ordered endpoint for the earlier messages of its key.
    Parked {
        /// The message.
        message: Arc<Envelope>,
        /// How often it was tried so far.
        attempts: u32,
        /// For what it waits.
        until: ParkedUntil,
    },
    /// A declared policy dropped it; it is counted.
    Dropped {
        /// The policy: `expired`, `late-timeout`, `saga-not-found`, `saga-exists`.
        policy: &'static str,
    },
}

/// What a parked message waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkedUntil {
    /// A saga: the transaction that creates it makes the message due. If it already exists when the unit commits, the
    /// row is due at once. After `at_most` it becomes due in any case, and is then dead-lettered.
    Saga {
        /// `endpoint/saga`.
        kind: Arc<str>,
        /// The correlation value.
        key: String,
        /// By the database's clock, from the commit.
        at_most: Duration,
    },
    /// The earlier messages of its order key, which are being retried. Due as soon as no row of the key lies before it.
    KeyUnblocked {
        /// The order key.
        key: String,
    },
}

/// A saga row's change. Every one compares (kind, key, instance, version).
#[derive(Clone, Debug)]
pub struct SagaWrite {
    /// `endpoint/saga`.
    pub kind: Arc<str>,
    /// The correlation value.
    pub key: String,
    /// What changes.
    pub change: SagaChange,
    /// Further correlation values, by name, from now on.
    pub aliases: Vec<(String, String)>,
}

/// See [`SagaWrite`].
#[derive(Clone, Debug)]
pub enum SagaChange {
    /// The first message of a new instance. Stale if a running one exists; replaces a completed one that was kept.
    /// Its version is 1 afterwards. Makes the messages parked for it due.
    Create {
        /// The new instance.
        instance: InstanceId,
        /// Its encoded state.
        state: Bytes,
        /// The version of the state's schema.
        schema: u32,
        /// Who started it, encoded; replies to the originator need it.
        origin: Option<Bytes>,
    },
    /// Another message. Stale unless the row has this instance and version; the version is one more afterwards.
    Update {
        /// The instance.
        instance: InstanceId,
        /// The version that was loaded.
        version: i64,
        /// The encoded state.
        state: Bytes,
        /// The version of the state's schema.
        schema: u32,
    },
    /// The last message. Its timers and aliases go too. The last unit of its key in a batch.
    Complete {
        /// The instance.
        instance: InstanceId,
        /// The version that was loaded; 0 for a saga that its first message completes, which is never stored but must
        /// not exist.
        version: i64,
        /// Keep the row, marked as completed, with this state, for so long. `None` deletes it.
        keep: Option<(Duration, Bytes)>,
    },
}

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// What.
    pub message: Envelope,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One queue: an endpoint's, or a reply queue.
    Queue(String),
    /// Every queue that subscribed to this message type.
    Topic(String),
}

impl Destination {
    /// The queue's or the topic's name.
    pub fn name(&self) -> &str {
        match self {
            Destination::Queue(name) | Destination::Topic(name) => name,
        }
    }
}

/// A change to the timers.
#[derive(Clone, Debug)]
pub enum TimerChange {
    /// A saga's timeout.
    Set {
        /// Its id.
        id: TimerId,
        /// When, by the database's clock.
        due: Due,
        /// The timeout message; its `saga` header names the instance, and a timer of another instance is dropped as late.
        message: Box<Envelope>,
    },
    /// Cancels one.
    Cancel {
        /// `endpoint/saga`.
        kind: Arc<str>,
        /// The correlation value.
        key: String,
        /// Which one.
        id: TimerId,
    },
    /// Cancels all of one message type that this instance has set.
    CancelType {
        /// `endpoint/saga`.
        kind: Arc<str>,
        /// The correlation value.
        key: String,
        /// The instance.
        instance: InstanceId,
        /// The timeout's wire name.
        message_type: String,
    },
}

/// When a timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So long after the commit.
    After(Duration),
    /// At this moment; at once if it is past.
    At(crate::Timestamp),
}

/// An outbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// Who commits: the owner of the outbox rows that come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// This process's run of it.
    pub node: NodeId,
}

/// What [`Store::commit`](crate::Store::commit) gets.
///
/// The caller sees to it that no two units share a gate, that the units of one saga key stand in the order in which
/// their handlers ran, and that a unit that completes a saga is the last of its key.
#[derive(Clone, Debug)]
pub struct CommitBatch {
    /// Whose units these are.
    pub owner: Owner,
    /// Whether sends go straight into queues of the same database (joined), or into the outbox (split, or a broker).
    pub joined: bool,
    /// The units.
    pub units: Vec<UnitOfWork>,
    /// Outbox rows whose messages have been confirmed: removed in the same transaction.
    pub sent: Vec<OutboxId>,
}

/// What [`Store::commit`](crate::Store::commit) answers.
#[derive(Clone, Debug)]
pub struct CommitReply {
    /// One per unit, in order.
    pub outcomes: Vec<Outcome>,
    /// Whether the `sent` rows are gone. If not, they must ride with a later batch.
    pub cleaned: bool,
}

impl CommitReply {
    /// The same failure for every unit.
    pub fn failed(units: usize, error: &crate::Error) -> Self {
        Self { outcomes: vec![Outcome::Failed(error.clone()); units], cleaned: false }
    }
}

/// What became of one unit.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is committed.
    Applied {
        /// The outbox rows of its sends, in order; empty when joined.
        outbox: Vec<OutboxId>,
        /// An unsent row of the same order key has another owner: the relay sends these in order, the committer does not.
        blocked_by_predecessor: bool,
    },
    /// The gate was already claimed: the message was handled, deferred, parked or dead-lettered before. Nothing was done.
    Duplicate,
    /// The saga, or the fence, is not what the unit was built on. Nothing was done; load again and run again.
    Stale,
    /// The store failed. Transient: nothing was done. Unknown: the gate will tell. Dispatch nothing from memory.
    Failed(crate::Error),
}

impl Outcome {
    /// Whether the unit is committed.
    pub fn is_applied(&self) -> bool {
        matches!(self, Outcome::Applied { .. })
    }
}
