use crate::sqlite::{SqliteOptions, SqliteStore};
use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, InstanceId, Intent, MessageId, NodeId, Outcome, Outgoing, Owner,
    Queues as _, Runtime, SagaChange, SagaWrite, Store, UnitOfWork,
};
use std::{path::PathBuf, sync::Arc};

/// A store in a directory of its own, with a queue `q`.
pub(super) struct Fixture {
    pub(super) store: Arc<SqliteStore>,
    pub(super) runtime: Runtime,
    pub(super) owner: Owner,
    pub(super) directory: PathBuf,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(SqliteOptions::default()).await
    }

    pub(super) async fn with(options: SqliteOptions) -> Self {
        let runtime = Runtime::system();
        let directory = std::env::temp_dir().join(format!("sagabus-sqlite-{}", runtime.uuid().simple()));
        std::fs::create_dir_all(&directory).unwrap();
        let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
        let store = SqliteStore::open(&url(&directory), options).await.unwrap();
        Store::migrate(&*store).await.unwrap();
        store.declare("q").await.unwrap();
        Self { store, runtime, owner, directory }
    }

    /// A connection of somebody else.
    pub(super) async fn stranger(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions as _;
        sqlx::sqlite::SqliteConnectOptions::new().filename(self.directory.join("bus.db")).connect().await.unwrap()
    }

    pub(super) async fn close(self) {
        self.store.close().await;
        std::fs::remove_dir_all(self.directory).unwrap();
    }

    pub(super) fn id(&self) -> MessageId {
        MessageId(self.runtime.uuid())
    }

    pub(super) fn message(&self) -> Envelope {
        Envelope::new(Headers::new(self.id(), "test.m", Intent::Command, self.runtime.now()), &b"{}"[..])
    }

    pub(super) fn unit(&self) -> UnitOfWork {
        UnitOfWork::new("order".into(), self.id(), Gate::Inbox)
    }

    pub(super) fn writes(&self, key: &str, change: SagaChange) -> UnitOfWork {
        let mut unit = self.unit();
        unit.saga = Some(SagaWrite { kind: "shop/order".into(), key: key.into(), change, aliases: Vec::new() });
        unit.sends.push(Outgoing { to: Destination::Queue("q".into()), message: self.message() });
        unit
    }

    pub(super) fn create(&self, key: &str, instance: InstanceId) -> UnitOfWork {
        self.writes(key, SagaChange::Create { instance, state: b"1"[..].into(), schema: 1, origin: None })
    }

    pub(super) fn update(&self, key: &str, instance: InstanceId, version: i64) -> UnitOfWork {
        self.writes(key, SagaChange::Update { instance, version, state: b"2"[..].into(), schema: 1 })
    }

    pub(super) fn batch(&self, units: Vec<UnitOfWork>) -> CommitBatch {
        CommitBatch { owner: self.owner.clone(), joined: true, units, sent: Vec::new() }
    }

    /// What became of the units: A(pplied), D(uplicate), S(tale), F(ailed).
    pub(super) async fn commit(&self, units: Vec<UnitOfWork>) -> String {
        outcome_codes(&self.store.commit(self.batch(units)).await.outcomes)
    }

    pub(super) async fn depth(&self) -> u64 {
        self.store.depth("q").await.unwrap()
    }
}

pub(super) fn url(directory: &std::path::Path) -> String {
    format!("sqlite://{}", directory.join("bus.db").display())
}

pub(super) fn outcome_codes(outcomes: &[Outcome]) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Applied { .. } => 'A',
        Outcome::Duplicate => 'D',
        Outcome::Stale => 'S',
        Outcome::Failed(_) => 'F',
    };
    outcomes.iter().map(letter).collect()
}
