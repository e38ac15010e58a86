//! How many units a second go through `Store::commit` on PostgreSQL: batches of several sizes, on one and two committers.
//!
//! Joined: each unit deletes its queue row, updates one of 10,000 sagas (360 bytes of state) and puts a message of 500
//! bytes into another queue. Split: the gate is the inbox, the message goes to the outbox, and is removed in a later batch.
//!
//! `SAGABUS_POSTGRES_URL=… cargo run --release -p sagabus-outbox --features postgres --example pg_commit_rate [units]`

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measuring program")]

use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, InstanceId, Intent, LoadRequest, MessageId, NodeId, OutboxId,
    Outcome, Outgoing, Owner, RowGate, RowTable, Runtime, SHARDS, SagaChange, SagaLookup, SagaWrite, Store, UnitOfWork,
};
use sagabus_outbox::postgres::{PostgresOptions, PostgresStore};
use std::{sync::Arc, time::Instant};

const SAGAS: usize = 10_000;

struct Bench {
    store: Arc<PostgresStore>,
    runtime: Runtime,
    owner: Owner,
    instances: Vec<InstanceId>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let units: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let url = std::env::var("SAGABUS_POSTGRES_URL").expect("SAGABUS_POSTGRES_URL");
    let runtime = Runtime::system();
    let schema = format!("bench_{}", runtime.uuid().simple());
    let store = Arc::new(PostgresStore::open(&url, PostgresOptions::default().schema(&schema)).await.unwrap());
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let owner = Owner { endpoint: "bench".into(), node: NodeId(runtime.uuid()) };
    let mut bench = Bench { store: store.clone(), runtime, owner, instances: Vec::new() };
    bench.sagas().await;
    println!("CPU of all postgres processes of this machine, and of this program, in microseconds per unit");
    println!(
        "{:>8} {:>6} {:>10} {:>10} {:>8} {:>8} {:>12} {:>8} {:>8}",
        "mode", "batch", "committers", "commit/s", "server", "program", "+ load/s", "server", "program"
    );
    for joined in [true, false] {
        for batch in [50, 100, 200, 500] {
            for committers in [1, 2] {
                let plain = bench.measure(joined, batch, committers, units, false).await;
                let loaded = bench.measure(joined, batch, committers, units, true).await;
                let mode = if joined { "joined" } else { "split" };
                let [rate, server, program] = plain;
                print!("{mode:>8} {batch:>6} {committers:>10} {rate:>10.0} {server:>8.1} {program:>8.1}");
                let [rate, server, program] = loaded;
                println!(" {rate:>12.0} {server:>8.1} {program:>8.1}");
            }
        }
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create table {schema}.row (id uuid primary key, n int not null)")))
        .execute(&mut <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap())
        .await
        .unwrap();
    println!(
        "own SQL: begin, insert a row, finish (inbox, saga, outbox); {:>8} {:>8} {:>8}",
        "units/s", "server", "program"
    );
    for handlers in [1, 4, 12] {
        let [rate, server, program] = bench.own(&schema, handlers, units / 10).await;
        println!("{handlers:>14} handlers at once {:>24} {rate:>8.0} {server:>8.1} {program:>8.1}", "");
    }
    store.close().await;
    let mut admin: sqlx::PgConnection = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let drop = sqlx::AssertSqlSafe(format!("set client_min_messages=warning;drop schema {schema} cascade"));
    sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
}

impl Bench {
    fn message(&self) -> Envelope {
        let id = MessageId(self.runtime.uuid());
        let headers = Headers::new(id, "bench.message", Intent::Command, self.runtime.now());
        Envelope::new(headers, vec![b'x'; 500])
    }

    async fn commit(&self, batch: CommitBatch) -> Vec<Outcome> {
        let reply = self.store.commit(batch).await;
        let bad = reply.outcomes.iter().find(|outcome| !outcome.is_applied());
        assert!(bad.is_none(), "{bad:?}");
        reply.outcomes
    }

    fn batch(&self, joined: bool, units: Vec<UnitOfWork>, sent: Vec<OutboxId>) -> CommitBatch {
        CommitBatch { owner: self.owner.clone(), joined, units, sent }
    }

    async fn sagas(&mut self) {
        for from in (0..SAGAS).step_by(500) {
            let mut units = Vec::new();
            for n in from..from + 500 {
                let instance = InstanceId(self.runtime.uuid());
                self.instances.push(instance);
                let mut unit = UnitOfWork::new("order".into(), MessageId(self.runtime.uuid()), Gate::None);
                let change = SagaChange::Create { instance, state: vec![b's'; 360].into(), schema: 1, origin: None };
                unit.saga =
                    Some(SagaWrite { kind: "bench/order".into(), key: format!("{n}"), change, aliases: Vec::new() });
                units.push(unit);
            }
            self.commit(self.batch(true, units, Vec::new())).await;
        }
    }

    async fn measure(&self, joined: bool, batch: usize, committers: usize, units: usize, load: bool) -> [f64; 3] {
        let queues = self.store.queues().unwrap();
        let (input, output) = (format!("in-{batch}-{committers}-{load}"), "out".to_string());
        queues.declare(&input).await.unwrap();
        queues.declare(&output).await.unwrap();
        let mut gates = Vec::new();
        if joined {
            for _ in 0..units / 1000 {
                let sends: Vec<Outgoing> = (0..1000)
                    .map(|_| Outgoing { to: Destination::Queue(input.clone()), message: self.message() })
                    .collect();
                assert!(queues.enqueue(&sends).await.iter().all(sagabus_core::SendOutcome::is_done));
            }
            let (all, mut after) = ((0..SHARDS).collect::<Vec<_>>(), 0);
            loop {
                let rows = queues.read(&input, &all, after, 5000).await.unwrap();
                let Some(last) = rows.last() else { break };
                after = last.id;
                gates.extend(
                    rows.iter().map(|row| {
                        (row.message_id, Gate::Row(RowGate { table: RowTable::Queue, id: row.id, token: 0 }))
                    }),
                );
            }
        } else {
            gates.extend((0..units).map(|_| (MessageId(self.runtime.uuid()), Gate::Inbox)));
        }
        let keys = SAGAS / committers;
        let versions = self.versions().await;
        let (start, before) = (Instant::now(), cpu());
        let work = gates.chunks(gates.len().div_ceil(committers)).enumerate().map(|(committer, gates)| {
            let mut versions = versions[committer * keys..(committer + 1) * keys].to_vec();
            let output = output.clone();
            async move {
                let mut next = 0;
                let mut sent = Vec::new();
                for gates in gates.chunks(batch) {
                    if load {
                        self.load(committer * keys, next, gates.len(), keys).await;
                    }
                    let units = gates.iter().map(|(id, gate)| {
                        let slot = next % keys;
                        next += 1;
                        let mut unit = UnitOfWork::new("order".into(), *id, *gate);
                        let at = committer * keys + slot;
                        let (instance, version) = (self.instances[at], versions[slot]);
                        versions[slot] += 1;
                        let change = SagaChange::Update { instance, version, state: vec![b't'; 360].into(), schema: 1 };
                        unit.saga = Some(SagaWrite {
                            kind: "bench/order".into(),
                            key: format!("{at}"),
                            change,
                            aliases: Vec::new(),
                        });
                        unit.sends.push(Outgoing { to: Destination::Queue(output.clone()), message: self.message() });
                        unit
                    });
                    let units = units.collect();
                    let outcomes = self.commit(self.batch(joined, units, std::mem::take(&mut sent))).await;
                    sent = outcomes
                        .into_iter()
                        .flat_map(|outcome| match outcome {
                            Outcome::Applied { outbox, .. } => outbox,
                            _ => Vec::new(),
                        })
                        .collect();
                }
            }
        });
        futures::future::join_all(work).await;
        let (seconds, after) = (start.elapsed().as_secs_f64(), cpu());
        let per_unit = |at: usize| (after[at] - before[at]) / units as f64;
        [units as f64 / seconds, per_unit(0), per_unit(1)]
    }

    /// Handlers with a business row of their own, so many at once, each on its own sagas.
    async fn own(&self, schema: &str, handlers: usize, units: usize) -> [f64; 3] {
        let (versions, keys) = (self.versions().await, SAGAS / handlers);
        let sql = format!("insert into {schema}.row values ($1, 1)");
        let (start, before) = (Instant::now(), cpu());
        let work = (0..handlers).map(|handler| {
            let (sql, mut versions) = (sql.clone(), versions[handler * keys..(handler + 1) * keys].to_vec());
            async move {
                for n in 0..units / handlers {
                    let (slot, id) = (n % keys, MessageId(self.runtime.uuid()));
                    let mut transaction = self.store.begin().await.unwrap();
                    let connection: &mut sqlx::PgConnection = transaction.raw().downcast_mut().unwrap();
                    sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).execute(connection).await.unwrap();
                    let mut unit = UnitOfWork::new("order".into(), id, Gate::Inbox);
                    let (instance, version) = (self.instances[handler * keys + slot], versions[slot]);
                    versions[slot] += 1;
                    let change = SagaChange::Update { instance, version, state: vec![b'u'; 360].into(), schema: 1 };
                    let key = format!("{}", handler * keys + slot);
                    unit.saga = Some(SagaWrite { kind: "bench/order".into(), key, change, aliases: Vec::new() });
                    unit.sends.push(Outgoing { to: Destination::Queue("out".into()), message: self.message() });
                    let outcome =
                        transaction.finish(self.batch(false, vec![unit], Vec::new())).await.outcomes.remove(0);
                    assert!(outcome.is_applied(), "{outcome:?}");
                }
            }
        });
        futures::future::join_all(work).await;
        let (seconds, after) = (start.elapsed().as_secs_f64(), cpu());
        let per_unit = |at: usize| (after[at] - before[at]) / units as f64;
        [units as f64 / seconds, per_unit(0), per_unit(1)]
    }

    async fn load(&self, from: usize, next: usize, count: usize, keys: usize) {
        let sagas = (next..next + count)
            .map(|n| SagaLookup::Key { kind: "bench/order".into(), key: format!("{}", from + n % keys) })
            .collect();
        let request = LoadRequest { endpoint: "bench".into(), sagas, ..LoadRequest::default() };
        assert!(self.store.load(request).await.unwrap().sagas.iter().all(Option::is_some));
    }

    async fn versions(&self) -> Vec<i64> {
        let sagas = (0..SAGAS).map(|n| SagaLookup::Key { kind: "bench/order".into(), key: format!("{n}") }).collect();
        let request = LoadRequest { endpoint: "bench".into(), sagas, ..LoadRequest::default() };
        self.store.load(request).await.unwrap().sagas.into_iter().map(|row| row.unwrap().version).collect()
    }
}

/// Microseconds of CPU that postgres and this program have used, as far as Linux tells.
fn cpu() -> [f64; 2] {
    let ticks = |stat: &str| -> f64 {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields[11].parse::<f64>().unwrap_or(0.0) + fields[12].parse::<f64>().unwrap_or(0.0)
    };
    let mut sums = [0.0; 2];
    let processes = std::fs::read_dir("/proc").map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    for process in processes {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        if stat.contains("(postgres)") {
            sums[0] += ticks(&stat) * 10_000.0;
        } else if stat.starts_with(&format!("{} ", std::process::id())) {
            sums[1] += ticks(&stat) * 10_000.0;
        }
    }
    sums
}
