//! No hot statement reads a whole table, whatever the planner believes: without statistics, with statistics of an empty
//! table, and with fresh ones. The server's own counters tell.

#![cfg(feature = "postgres")]

mod postgres_support;

use postgres_support::Schema;
use sagabus_core::{
    CommitBatch, Destination, Due, DueQuery, Envelope, Gate, Headers, InstanceId, Intent, LoadRequest, MessageId,
    NodeId, Outgoing, Owner, RowGate, RowTable, Runtime, SHARDS, SagaChange, SagaLookup, SagaWrite, Store, TimerChange,
    TimerId, UnitOfWork,
};
use sqlx::{AssertSqlSafe, Row as _};
use std::time::Duration;

const KIND: &str = "shop/order";
const SAGAS: usize = 3_000;
const BATCH: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistics {
    None,
    OfEmptyTables,
    Fresh,
}

struct Load {
    runtime: Runtime,
    owner: Owner,
    lives: Vec<InstanceId>,
}

impl Load {
    fn message(&self, intent: Intent) -> Envelope {
        let headers = Headers::new(MessageId(self.runtime.uuid()), "test", intent, self.runtime.now());
        Envelope::new(headers, vec![b'x'; 200])
    }

    async fn commit(&self, store: &dyn Store, joined: bool, units: Vec<UnitOfWork>) {
        let batch = CommitBatch { owner: self.owner.clone(), joined, units, sent: Vec::new() };
        let outcomes = store.commit(batch).await.outcomes;
        assert!(outcomes.iter().all(sagabus_core::Outcome::is_applied), "{outcomes:?}");
    }

    fn unit(&self, n: usize, change: SagaChange) -> UnitOfWork {
        let mut unit = UnitOfWork::new("order".into(), MessageId(self.runtime.uuid()), Gate::Inbox);
        unit.saga = Some(SagaWrite { kind: KIND.into(), key: format!("{n}"), change, aliases: Vec::new() });
        let timer = TimerChange::Set {
            id: TimerId(self.runtime.uuid()),
            due: Due::After(Duration::from_secs(3600)),
            message: Box::new(self.message(Intent::Timeout)),
        };
        unit.timers.push(timer);
        unit.sends.push(Outgoing { to: Destination::Queue("q".into()), message: self.message(Intent::Command) });
        unit
    }

    async fn create(&mut self, store: &dyn Store) {
        for from in (0..SAGAS).step_by(BATCH) {
            let mut units = Vec::new();
            for n in from..from + BATCH {
                let instance = InstanceId(self.runtime.uuid());
                self.lives.push(instance);
                units.push(
                    self.unit(n, SagaChange::Create { instance, state: vec![0; 200].into(), schema: 1, origin: None }),
                );
            }
            self.commit(store, from % 200 == 0, units).await;
        }
    }

    /// At once: the first one by itself, the others in one statement.
    async fn count(&self, store: &dyn Store, messages: &[MessageId]) {
        let counts = messages.iter().map(|message| store.count_attempt("shop", "order", *message));
        let counts = futures::future::join_all(counts).await;
        assert!(counts.iter().all(|count| count.as_ref().is_ok_and(|count| *count == 1)), "{counts:?}");
    }

    async fn idle(&self, store: &dyn Store) {
        let sagas = vec![SagaLookup::Key { kind: KIND.into(), key: "0".into() }];
        let request = LoadRequest { endpoint: "shop".into(), sagas, ..LoadRequest::default() };
        assert_eq!(store.load(request).await.expect("load").sagas, [None]);
        let change =
            SagaChange::Update { instance: InstanceId(self.runtime.uuid()), version: 1, state: "x".into(), schema: 1 };
        for joined in [true, false] {
            let units = vec![self.unit(0, change.clone())];
            let batch = CommitBatch { owner: self.owner.clone(), joined, units, sent: Vec::new() };
            assert!(matches!(store.commit(batch).await.outcomes[0], sagabus_core::Outcome::Stale));
        }
        let all: Vec<u16> = (0..SHARDS).collect();
        assert!(store.queues().expect("queues").read("q", &all, 0, 10).await.expect("read").is_empty());
        for table in RowTable::DUE {
            let query = DueQuery { endpoint: "shop".into(), table, shards: all.clone(), after: None, limit: 100 };
            store.due(&query).await.expect("due");
        }
        self.count(store, &[MessageId(self.runtime.uuid())]).await;
        store.outbox_own(&self.owner, sagabus_core::OutboxId(0), 10).await.expect("own");
        store.outbox_orphans(&self.owner, 10).await.expect("orphans");
    }

    async fn run(&self, store: &dyn Store) {
        let queues = store.queues().expect("queues");
        let all: Vec<u16> = (0..SHARDS).collect();
        let mut after = 0;
        for (round, from) in (0..SAGAS).step_by(BATCH).enumerate() {
            let range = from..from + BATCH;
            let sagas = range.clone().map(|n| SagaLookup::Key { kind: KIND.into(), key: format!("{n}") }).collect();
            let probes = range.clone().map(|_| ("order".into(), MessageId(self.runtime.uuid()))).collect();
            let request =
                LoadRequest { endpoint: "shop".into(), probes, sagas, turns: vec![("order".into(), "k".into())] };
            assert!(store.load(request).await.expect("load").sagas.iter().all(Option::is_some));
            let mut units: Vec<UnitOfWork> = range
                .map(|n| {
                    let instance = self.lives[n];
                    self.unit(n, SagaChange::Update { instance, version: 1, state: vec![1; 200].into(), schema: 1 })
                })
                .collect();
            let rows = queues.read("q", &all, after, BATCH).await.expect("read");
            for (unit, row) in units.iter_mut().zip(&rows) {
                unit.gate = Gate::Row(RowGate { table: RowTable::Queue, id: row.id, token: 0 });
                after = row.id;
            }
            let messages: Vec<MessageId> = units.iter().map(|unit| unit.message_id).collect();
            self.count(store, &messages).await;
            // half of the rows go with their messages, the others stay
            units.iter_mut().step_by(2).for_each(|unit| unit.counted = true);
            self.commit(store, round % 2 == 0, units).await;
            for table in RowTable::DUE {
                let query = DueQuery { endpoint: "shop".into(), table, shards: all.clone(), after: None, limit: 100 };
                store.due(&query).await.expect("due");
            }
        }
    }
}

async fn scans(schema: &Schema) -> Vec<(String, i64)> {
    let sql = format!(
        "select relname::text,seq_scan from pg_stat_user_tables where schemaname='{}' and seq_scan>0 and relname ~ \
         '^(saga|saga_alias|inbox.*|outbox|timer|retry|parked|dead_letter|attempt|queue|queue_dedup.*)$' order by 1",
        schema.0
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut schema.connect().await).await.expect("statistics");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn check(statistics: Statistics) {
    let schema = Schema::new().await;
    // the indices are built by reading: those counters go in when the connection ends
    schema.open(schema.options()).await.close().await;
    let runtime = Runtime::system();
    runtime.sleep(Duration::from_millis(300)).await;
    let before = scans(&schema).await;
    let store = schema.open(schema.options()).await;
    store.queues().expect("queues").declare("q").await.expect("declare");
    schema
        .run(
            "alter table {s}.saga set (autovacuum_enabled=off); alter table {s}.queue set (autovacuum_enabled=off)"
                .into(),
        )
        .await;
    if statistics == Statistics::OfEmptyTables {
        schema.run("vacuum analyze".into()).await;
    }
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let mut load = Load { runtime, owner, lives: Vec::new() };
    // plans that are made while the tables are empty live on
    load.idle(&store).await;
    load.create(&store).await;
    if statistics == Statistics::Fresh {
        schema.run("vacuum analyze".into()).await;
    }
    load.run(&store).await;
    // a backend hands in its counters when it ends
    store.close().await;
    load.runtime.sleep(Duration::from_millis(300)).await;
    assert_eq!(scans(&schema).await, before, "tables that were read as a whole, with {statistics:?} statistics");
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_statistics() {
    check(Statistics::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_statistics_of_empty_tables() {
    check(Statistics::OfEmptyTables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fresh_statistics() {
    check(Statistics::Fresh).await;
}

/// Also where the table is mostly room that earlier rows have left, and the planner has just been told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_found_by_its_id() {
    let schema = Schema::new().await;
    let store = schema.open(schema.options()).await;
    let runtime = Runtime::system();
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let load = Load { runtime, owner, lives: Vec::new() };
    let mut ids = Vec::new();
    for _ in 0..SAGAS / BATCH {
        let unit = |_| {
            let mut unit = UnitOfWork::new("order".into(), MessageId(load.runtime.uuid()), Gate::Inbox);
            unit.sends.push(Outgoing { to: Destination::Queue("q".into()), message: load.message(Intent::Command) });
            unit
        };
        let units = (0..BATCH).map(unit).collect();
        let batch = CommitBatch { owner: load.owner.clone(), joined: false, units, sent: Vec::new() };
        for outcome in store.commit(batch).await.outcomes {
            let sagabus_core::Outcome::Applied { outbox, .. } = outcome else { panic!("{outcome:?}") };
            ids.extend(outbox);
        }
    }
    let (sent, rest) = ids.split_at(SAGAS - 5 * BATCH);
    store.outbox_delete(sent).await.expect("delete");
    schema.run("analyze {s}.outbox".into()).await;
    for some in rest.chunks(BATCH) {
        store.outbox_delete(some).await.expect("delete");
    }
    store.close().await;
    load.runtime.sleep(Duration::from_millis(300)).await;
    let sql = format!(
        "select idx_scan from pg_stat_user_indexes where schemaname='{}' and indexrelname='outbox_owner'",
        schema.0
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut schema.connect().await).await.expect("statistics");
    assert_eq!(row.get::<i64, _>(0), 0, "scans of the index by owner, which reads all of it for each id");
    schema.drop().await;
}
