use super::{KIND, StoreHarness, address, eventually};
use sagabus_core::{
    CommitBatch, CommitReply, DeadLetter, Disposition, Due, DueQuery, DueRow, Envelope, Gate, Headers, InstanceId,
    Intent, LoadReply, LoadRequest, MessageId, NodeId, OutboxId, Outcome, Owner, QueueRow, Queues, RowGate, RowTable,
    Runtime, SHARDS, SagaLookup, SagaRow, SendOutcome, Store, TimerChange, TimerId, Timestamp, UnitOfWork,
};
use std::{future::Future, sync::Arc, time::Duration};

/// What a case works with: a fresh store, an owner, and short ways to do and to see things.
pub struct Fixture {
    /// The backend.
    pub harness: Arc<dyn StoreHarness>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time and ids.
    pub runtime: Runtime,
    /// Who commits: a node of the endpoint `shop`.
    pub owner: Owner,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

impl Fixture {
    pub(super) fn new(harness: Arc<dyn StoreHarness>, store: Arc<dyn Store>) -> Self {
        let runtime = harness.runtime();
        let node = NodeId(runtime.uuid());
        let owner = Owner { endpoint: "shop".into(), node };
        Self { harness, store, runtime, owner }
    }

    /// The same database through another handle, as another process: with another node of the same endpoint.
    pub async fn other(&self) -> Fixture {
        let store = self.harness.again(&self.store).await;
        Fixture::new(self.harness.clone(), store)
    }

    /// A node of another endpoint, on the same handle.
    pub fn endpoint(&self, name: &str) -> Fixture {
        let mut fixture = Fixture::new(self.harness.clone(), self.store.clone());
        fixture.owner.endpoint = name.into();
        fixture
    }

    /// A new message id.
    pub fn id(&self) -> MessageId {
        MessageId(self.runtime.uuid())
    }

    /// A new life.
    pub fn instance(&self) -> InstanceId {
        InstanceId(self.runtime.uuid())
    }

    /// A new timer id.
    pub fn timer_id(&self) -> TimerId {
        TimerId(self.runtime.uuid())
    }

    /// A command with a body.
    pub fn message(&self) -> Envelope {
        let headers = Headers::new(self.id(), "test.message", Intent::Command, self.runtime.now());
        Envelope::new(headers, &b"{\"n\":1}"[..])
    }

    /// The same with an order key.
    pub fn keyed(&self, key: &str) -> Envelope {
        let mut message = self.message();
        message.headers.order_key = Some(key.into());
        message
    }

    /// A timeout of a life.
    pub fn timeout(&self, key: &str, instance: InstanceId) -> Box<Envelope> {
        let mut message = self.message();
        message.headers.intent = Intent::Timeout;
        message.headers.message_type = "test.timeout".into();
        message.headers.saga = Some(address(key, instance));
        Box::new(message)
    }

    /// A timer that is due already, of some life.
    pub fn past_timer(&self, key: &str) -> TimerChange {
        TimerChange::Set {
            id: self.timer_id(),
            due: Due::At(Timestamp(1)),
            message: self.timeout(key, self.instance()),
        }
    }

    /// A unit of the handler `order` for a new message.
    pub fn unit(&self) -> UnitOfWork {
        self.unit_of("order", self.id(), Gate::Inbox)
    }

    /// A unit.
    pub fn unit_of(&self, handler: &str, message: MessageId, gate: Gate) -> UnitOfWork {
        UnitOfWork::new(handler.into(), message, gate)
    }

    /// A unit for a new message that writes a saga.
    pub fn writes(&self, write: sagabus_core::SagaWrite) -> UnitOfWork {
        let mut unit = self.unit();
        unit.saga = Some(write);
        unit
    }

    /// A unit for a message with this disposition.
    pub fn disposed(&self, message: &Envelope, disposition: Disposition) -> UnitOfWork {
        let mut unit = self.unit_of("order", message.headers.message_id, Gate::Inbox);
        unit.disposition = disposition;
        unit
    }

    /// A unit that does nothing but open the gate of a row.
    pub fn handled(&self, row: &DueRow) -> UnitOfWork {
        self.unit_of(&row.handler, row.message.headers.message_id, Gate::Row(row.gate))
    }

    /// A batch of this owner.
    pub fn batch(&self, joined: bool, units: Vec<UnitOfWork>) -> CommitBatch {
        CommitBatch { owner: self.owner.clone(), joined, units, sent: Vec::new() }
    }

    /// Commits joined, if the store has queues.
    pub async fn commit(&self, units: Vec<UnitOfWork>) -> Vec<Outcome> {
        let count = units.len();
        let reply = self.store.commit(self.batch(self.store.queues().is_some(), units)).await;
        assert_eq!(reply.outcomes.len(), count, "one outcome per unit");
        reply.outcomes
    }

    /// Commits one unit joined.
    pub async fn commit_one(&self, unit: UnitOfWork) -> Outcome {
        self.commit(vec![unit]).await.remove(0)
    }

    /// Commits one unit joined; it must apply.
    pub async fn apply(&self, unit: UnitOfWork) {
        let outcome = self.commit_one(unit).await;
        assert!(outcome.is_applied(), "not applied: {outcome:?}");
    }

    /// Commits split: sends go to the outbox.
    pub async fn split(&self, units: Vec<UnitOfWork>) -> CommitReply {
        let count = units.len();
        let reply = self.store.commit(self.batch(false, units)).await;
        assert_eq!(reply.outcomes.len(), count, "one outcome per unit");
        reply
    }

    /// Commits one unit split, which must apply: (outbox rows, behind).
    pub async fn split_one(&self, unit: UnitOfWork) -> (Vec<OutboxId>, bool) {
        match self.split(vec![unit]).await.outcomes.remove(0) {
            Outcome::Applied { outbox, blocked_by_predecessor: behind } => (outbox, behind),
            other => panic!("not applied: {other:?}"),
        }
    }

    /// Loads for this endpoint.
    pub async fn load(&self, request: LoadRequest) -> LoadReply {
        let endpoint = self.owner.endpoint.clone();
        self.store.load(LoadRequest { endpoint, ..request }).await.expect("load")
    }

    /// Whether the inbox has the message for the handler `order`.
    pub async fn probe(&self, message: MessageId) -> bool {
        let probes = vec![("order".into(), message)];
        self.load(LoadRequest { probes, ..LoadRequest::default() }).await.probes[0]
    }

    /// Finds a saga.
    pub async fn find(&self, lookup: SagaLookup) -> Option<SagaRow> {
        let sagas = vec![lookup];
        self.load(LoadRequest { sagas, ..LoadRequest::default() }).await.sagas.remove(0)
    }

    /// The saga of the usual kind under a key.
    pub async fn saga(&self, key: &str) -> Option<SagaRow> {
        self.find(SagaLookup::Key { kind: KIND.into(), key: key.into() }).await
    }

    /// Version and state of the saga of the usual kind under a key.
    pub async fn version(&self, key: &str) -> Option<(i64, Vec<u8>)> {
        self.saga(key).await.map(|row| (row.version, row.state.to_vec()))
    }

    /// Creates a saga of the usual kind and returns the life.
    pub async fn born(&self, key: &str) -> InstanceId {
        let instance = self.instance();
        self.apply(self.writes(super::create(key, instance, &b"born"[..]))).await;
        instance
    }

    /// Whether a message of the order key is blocked, for the handler `order`.
    pub async fn blocked(&self, key: &str) -> bool {
        let turns = vec![("order".into(), key.into())];
        self.load(LoadRequest { blocked_keys: turns, ..LoadRequest::default() }).await.blocked_keys[0]
    }

    /// A query over all shards.
    pub fn query(&self, table: RowTable) -> DueQuery {
        DueQuery {
            endpoint: self.owner.endpoint.clone(),
            table,
            shards: (0..SHARDS).collect(),
            after: None,
            limit: 1000,
        }
    }

    /// The rows that are due now.
    pub async fn due(&self, table: RowTable) -> Vec<DueRow> {
        self.store.due(&self.query(table)).await.expect("due").rows
    }

    /// Waits for rows of a table to be due.
    pub async fn wait_due(&self, table: RowTable) -> Vec<DueRow> {
        self.until("a row is due", || async { Some(self.due(table).await).filter(|rows| !rows.is_empty()) }).await
    }

    /// See [`eventually`].
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, ask: impl FnMut() -> F) -> T {
        eventually(&self.runtime, what, ask).await
    }

    /// How many rows a table holds.
    pub async fn count(&self, table: &str) -> u64 {
        let counts = self.store.admin().counts().await.expect("counts");
        *counts.get(table).unwrap_or_else(|| panic!("`counts` does not name {table}"))
    }

    /// How many inbox rows there are, of both tables.
    pub async fn inbox(&self) -> u64 {
        self.count("inbox").await + self.count("inbox_misc").await
    }

    /// The dead letters of this endpoint.
    pub async fn dead(&self) -> Vec<DeadLetter> {
        self.store.admin().dead_letters(&self.owner.endpoint, 0, 1000).await.expect("dead letters")
    }

    /// The store's queues with these ones declared. A store without queues must refuse joined sends; then the rest of
    /// the case does not apply.
    pub async fn queues(&self, names: &[&str]) -> Option<Arc<dyn Queues>> {
        let Some(queues) = self.store.queues() else {
            let mut unit = self.unit();
            unit.sends.push(super::to_queue("q", self.message()));
            let outcome = self.store.commit(self.batch(true, vec![unit])).await.outcomes.remove(0);
            assert!(matches!(&outcome, Outcome::Failed(e) if e.is_unsupported()), "not refused: {outcome:?}");
            return None;
        };
        for name in names {
            queues.declare(name).await.expect("declare");
        }
        Some(queues)
    }

    /// The rows of a queue.
    pub async fn queue(&self, name: &str) -> Vec<QueueRow> {
        let shards: Vec<u16> = (0..SHARDS).collect();
        let queues = self.store.queues().expect("the store has queues");
        queues.read(name, &shards, 0, 10_000).await.expect("read")
    }

    /// Puts a message into a queue.
    pub async fn enqueue(&self, queue: &str, message: Envelope) {
        let queues = self.store.queues().expect("the store has queues");
        let outcomes = queues.enqueue(&[super::to_queue(queue, message)]).await;
        assert!(matches!(outcomes.as_slice(), [SendOutcome::Done]), "not enqueued: {outcomes:?}");
    }

    /// Makes a due row of the table, for the handler `order`, and returns it.
    pub async fn row(&self, table: RowTable) -> DueRow {
        let message = Arc::new(self.message());
        let id = message.headers.message_id;
        let mut unit = self.unit_of("order", id, Gate::Inbox);
        unit.disposition = match table {
            RowTable::Retry => deferred(&message, None, Duration::ZERO),
            RowTable::Parked => parked_turn(&message, &id.to_string()),
            RowTable::DeadLetter => buried(&message, "test"),
            _ => Disposition::Handled,
        };
        if table == RowTable::Timer {
            unit.timers.push(self.past_timer("row"));
        }
        self.apply(unit).await;
        if table == RowTable::DeadLetter {
            let ids: Vec<i64> = self.dead().await.iter().map(|dead| dead.id).collect();
            assert!(self.store.admin().retry_dead_letters("shop", &ids).await.expect("retry") > 0);
        }
        let rows = self.wait_due(table).await;
        rows.into_iter().last().expect("a row is due")
    }
}

/// Tried again after a time, under an order key or without.
pub(super) fn deferred(message: &Arc<Envelope>, key: Option<&str>, delay: Duration) -> Disposition {
    Disposition::Deferred {
        message: message.clone(),
        key: key.map(Into::into),
        attempts: 3,
        delay,
        reason: "test".into(),
    }
}

/// Waits for its turn.
pub(super) fn parked_turn(message: &Arc<Envelope>, key: &str) -> Disposition {
    Disposition::Parked {
        message: message.clone(),
        attempts: 0,
        until: sagabus_core::ParkedUntil::KeyUnblocked { key: key.into() },
    }
}

/// Waits for a saga of the usual kind.
pub(super) fn parked_saga(message: &Arc<Envelope>, key: &str, at_most: Duration) -> Disposition {
    Disposition::Parked {
        message: message.clone(),
        attempts: 0,
        until: sagabus_core::ParkedUntil::Saga { kind: KIND.into(), key: key.into(), at_most },
    }
}

/// A dead letter.
pub(super) fn buried(message: &Arc<Envelope>, reason: &str) -> Disposition {
    Disposition::DeadLettered {
        message: message.clone(),
        attempts: 4,
        reason: reason.into(),
        detail: vec!["outer".into(), "inner".into()],
    }
}

/// The gate of a queue row: such rows are never moved, their token is 0.
pub(super) fn queue_gate(row: &QueueRow) -> Gate {
    Gate::Row(RowGate { table: RowTable::Queue, id: row.id, token: 0 })
}

/// What the outcomes are, as letters: A(pplied), D(uplicate), S(tale), F(ailed).
pub(super) fn outcome_codes(outcomes: &[Outcome]) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => 'A',
        Outcome::Duplicate => 'D',
        Outcome::Stale => 'S',
        Outcome::Failed(_) => 'F',
    };
    outcomes.iter().map(letter).collect()
}
