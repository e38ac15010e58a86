use sagabus_core::{LeaseRequest, LoadRequest, MessageId, Outgoing, Owner, RowTable, TimerId, Timestamp, UnitOfWork};
use std::{sync::Arc, time::Duration};

/// One operation, in words that mean the same to every store: numbers stand for what each calls by a name of its own.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Commit {
        owner: Owner,
        joined: bool,
        units: Vec<Planned>,
        sent: Vec<usize>,
    },
    /// A handler's own transaction, with sends that were recorded in it; finished, or dropped.
    Transaction {
        owner: Owner,
        joined: bool,
        enlisted: Vec<Outgoing>,
        unit: Option<Box<Planned>>,
        sent: Vec<usize>,
    },
    Load(LoadRequest),
    Due {
        endpoint: Arc<str>,
        table: RowTable,
        shards: Vec<u16>,
        after: Option<usize>,
        limit: usize,
    },
    OutboxOwn {
        owner: Owner,
        after: Option<usize>,
        limit: usize,
    },
    OutboxOrphans {
        owner: Owner,
        limit: usize,
    },
    OutboxDelete(Vec<usize>),
    OutboxBury {
        owner: Owner,
        rows: Vec<(usize, String)>,
    },
    CountAttempt {
        endpoint: Arc<str>,
        handler: Arc<str>,
        message: MessageId,
    },
    Prune(Duration),
    Declare(String),
    Subscribe(String, Vec<String>),
    Enqueue(Vec<Outgoing>),
    Read {
        queue: String,
        shards: Vec<u16>,
        after: Option<usize>,
        limit: usize,
    },
    Delete {
        queue: String,
        rows: Vec<usize>,
    },
    Depth(String),
    Heartbeat(LeaseRequest),
    /// A clean stop, and a new node in its place.
    Restart {
        old: LeaseRequest,
        new: LeaseRequest,
    },
    DeadLetters {
        endpoint: Arc<str>,
        limit: usize,
    },
    RetryDead {
        endpoint: Arc<str>,
        rows: Vec<usize>,
    },
    DiscardDead {
        endpoint: Arc<str>,
        rows: Vec<usize>,
    },
    Timers {
        endpoint: Arc<str>,
        limit: usize,
    },
    MoveTimer {
        endpoint: Arc<str>,
        id: TimerId,
        due: Timestamp,
    },
    CancelTimer {
        endpoint: Arc<str>,
        id: TimerId,
    },
    SagaKeys {
        kind: String,
        after: String,
        limit: usize,
    },
    /// Everything that can be seen, and then most of it is removed, so that a long run does not get slow.
    Tidy,
}

impl Op {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Op::Commit { .. } => "commit",
            Op::Transaction { .. } => "transaction",
            Op::Load(_) => "load",
            Op::Due { .. } => "due",
            Op::OutboxOwn { .. } => "outbox_own",
            Op::OutboxOrphans { .. } => "outbox_orphans",
            Op::OutboxDelete(_) => "outbox_delete",
            Op::OutboxBury { .. } => "outbox_dead_letter",
            Op::CountAttempt { .. } => "count_attempt",
            Op::Prune(_) => "prune",
            Op::Declare(_) => "declare",
            Op::Subscribe(..) => "subscribe",
            Op::Enqueue(_) => "enqueue",
            Op::Read { .. } => "read",
            Op::Delete { .. } => "delete",
            Op::Depth(_) => "depth",
            Op::Heartbeat(_) => "heartbeat",
            Op::Restart { .. } => "restart",
            Op::DeadLetters { .. } => "dead_letters",
            Op::RetryDead { .. } => "retry_dead",
            Op::DiscardDead { .. } => "discard_dead",
            Op::Timers { .. } => "timers",
            Op::MoveTimer { .. } => "move_timer",
            Op::CancelTimer { .. } => "cancel_timer",
            Op::SagaKeys { .. } => "saga_keys",
            Op::Tidy => "tidy",
        }
    }
}

/// A unit whose row gate and fence are numbers.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// Its gate is the row below, if there is one.
    pub(super) unit: UnitOfWork,
    pub(super) row: Option<usize>,
    pub(super) fence: Option<usize>,
}

impl Planned {
    /// Takes the order keys off its messages: whether one is behind another that is confirmed by the same commit is for the
    /// store to say.
    pub(super) fn unkeyed(&mut self) {
        for outgoing in &mut self.unit.sends {
            outgoing.message.headers.order_key = None;
        }
    }
}
