//! How many units the SQLite store commits per second: each deletes a queue row, updates a saga of 360 bytes among
//! 10,000, and sends 500 bytes to a queue of the same file.
//!
//! `cargo run --release -p sagabus-outbox --example commit_rate [batches-per-setting] [batch size]`
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, reason = "a measurement")]

use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, InstanceId, Intent, LoadRequest, MessageId, NodeId, Outgoing,
    Owner, Queues, RowGate, RowTable, Runtime, SHARDS, SagaChange, SagaLookup, SagaWrite, Store, UnitOfWork,
};
use sagabus_outbox::sqlite::{SqliteOptions, SqliteStore};
use std::{sync::Arc, time::Instant};

const KEYS: usize = 10_000;

/// Seconds that this process has computed, all threads together, from /proc: steadier than the rate on a busy machine.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.filter_map(|task| nanos(task.path())).sum::<f64>() / 1e9
}

/// A measurement under way.
struct Watch(Instant, f64);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn tell(&self, what: &str, count: usize) {
        let (wall, cpu) = (self.0.elapsed().as_secs_f64(), cpu() - self.1);
        let (rate, each) = (count as f64 / wall, cpu * 1e6 / count as f64);
        println!("{what}: {rate:.0}/s, {each:.1} us of CPU each, {:.0} % busy", cpu / wall * 100.0);
    }
}

struct Bench {
    store: Arc<SqliteStore>,
    runtime: Runtime,
    owner: Owner,
    kind: Arc<str>,
    handler: Arc<str>,
    instances: Vec<(InstanceId, i64)>,
    next: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let batches: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(300);
    let runtime = Runtime::system();
    let directory = std::env::temp_dir().join(format!("sagabus-rate-{}", runtime.uuid().simple()));
    std::fs::create_dir_all(&directory).unwrap();
    let url = format!("sqlite://{}", directory.join("bus.db").display());
    let store = SqliteStore::open(&url, SqliteOptions::new(runtime.clone())).await.unwrap();
    Store::migrate(&*store).await.unwrap();
    store.check().await.unwrap();
    for queue in ["in", "out"] {
        store.declare(queue).await.unwrap();
    }
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let mut bench = Bench {
        store,
        runtime,
        owner,
        kind: "shop/order".into(),
        handler: "order".into(),
        instances: Vec::new(),
        next: 0,
    };
    bench.create().await;
    let only: Option<usize> = std::env::args().nth(2).and_then(|n| n.parse().ok());
    for size in [1, 50, 100, 200].into_iter().filter(|size| only.is_none_or(|only| only == *size)) {
        let batches = if size == 1 { batches * 3 } else { batches };
        bench.fill(batches * size).await;
        bench.run(size, batches, false).await;
        bench.fill(batches * size).await;
        bench.run(size, batches, true).await;
    }
    bench.own_sql(3000, 1).await;
    bench.own_sql(6000, 64).await;
    bench.store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

impl Bench {
    fn message(&self) -> Envelope {
        let headers = Headers::new(MessageId(self.runtime.uuid()), "bench.step", Intent::Command, self.runtime.now());
        Envelope::new(headers, vec![b'x'; 500])
    }

    fn unit(&self, message: MessageId, gate: Gate) -> UnitOfWork {
        UnitOfWork::new(self.handler.clone(), message, gate)
    }

    async fn create(&mut self) {
        for chunk in 0..KEYS / 200 {
            let mut units = Vec::new();
            for n in 0..200 {
                let instance = InstanceId(self.runtime.uuid());
                self.instances.push((instance, 1));
                let mut unit = self.unit(MessageId(self.runtime.uuid()), Gate::Inbox);
                let change = SagaChange::Create { instance, state: vec![b's'; 360].into(), schema: 1, origin: None };
                let key = format!("key-{}", chunk * 200 + n);
                unit.saga = Some(SagaWrite { kind: self.kind.clone(), key, change, aliases: Vec::new() });
                units.push(unit);
            }
            self.commit(units).await;
        }
    }

    async fn fill(&self, messages: usize) {
        let batch: Vec<Outgoing> =
            (0..messages).map(|_| Outgoing { to: Destination::Queue("in".into()), message: self.message() }).collect();
        let watch = Watch::start();
        for chunk in batch.chunks(500) {
            assert!(self.store.enqueue(chunk).await.iter().all(|outcome| outcome.is_done()));
        }
        watch.tell("enqueue 500", messages);
    }

    async fn commit(&self, units: Vec<UnitOfWork>) {
        let batch = CommitBatch { owner: self.owner.clone(), joined: true, units, sent: Vec::new() };
        let reply = self.store.commit(batch).await;
        assert!(reply.outcomes.iter().all(|outcome| outcome.is_applied()), "{:?}", reply.outcomes);
    }

    /// With `read`, the queue rows and the sagas are read too, one batch ahead, as an endpoint does.
    async fn run(&mut self, size: usize, batches: usize, read: bool) {
        let shards: Vec<u16> = (0..SHARDS).collect();
        let mut after = 0;
        let mut preread = Vec::new();
        if !read {
            preread = self.store.read("in", &shards, 0, usize::MAX >> 1).await.unwrap();
        }
        let mut preread = preread.into_iter();
        let watch = Watch::start();
        let mut running: Option<tokio::task::JoinHandle<()>> = None;
        for _ in 0..batches {
            let rows: Vec<_> = match read {
                false => preread.by_ref().take(size).collect(),
                true => self.store.read("in", &shards, after, size).await.unwrap(),
            };
            after = rows.last().map_or(after, |row| row.id);
            let mut units = Vec::new();
            let mut lookups = Vec::new();
            for row in &rows {
                let slot = self.next % KEYS;
                self.next += 7919;
                let key = format!("key-{slot}");
                let (instance, version) = self.instances[slot];
                self.instances[slot].1 += 1;
                if read {
                    lookups.push(SagaLookup::Key { kind: self.kind.clone(), key: key.clone() });
                }
                let gate = Gate::Row(RowGate { table: RowTable::Queue, id: row.id, token: 0 });
                let mut unit = self.unit(row.message_id, gate);
                let state = vec![b't'; 360].into();
                let change = SagaChange::Update { instance, version, state, schema: 1 };
                unit.saga = Some(SagaWrite { kind: self.kind.clone(), key, change, aliases: Vec::new() });
                unit.sends.push(Outgoing { to: Destination::Queue("out".into()), message: self.message() });
                units.push(unit);
            }
            if read {
                let request =
                    LoadRequest { endpoint: self.owner.endpoint.clone(), sagas: lookups, ..LoadRequest::default() };
                assert!(self.store.load(request).await.unwrap().sagas.iter().all(Option::is_some));
            }
            if let Some(running) = running.take() {
                running.await.unwrap();
            }
            let batch = CommitBatch { owner: self.owner.clone(), joined: true, units, sent: Vec::new() };
            let store = self.store.clone();
            running = Some(tokio::spawn(async move {
                let reply = store.commit(batch).await;
                assert!(reply.outcomes.iter().all(|outcome| outcome.is_applied()), "{:?}", reply.outcomes);
            }));
        }
        if let Some(running) = running {
            running.await.unwrap();
        }
        let what = if read { "read, load and commit" } else { "commit" };
        watch.tell(&format!("{what} {size}"), size * batches);
    }

    /// Units that write a business row through own SQL, so many at a time.
    async fn own_sql(&mut self, units: usize, at_once: usize) {
        let watch = Watch::start();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..units {
            if tasks.len() >= at_once {
                tasks.join_next().await.unwrap().unwrap();
            }
            let slot = self.next % KEYS;
            self.next += 7919;
            let (instance, version) = self.instances[slot];
            self.instances[slot].1 += 1;
            let mut unit = self.unit(MessageId(self.runtime.uuid()), Gate::Inbox);
            let change = SagaChange::Update { instance, version, state: vec![b't'; 360].into(), schema: 1 };
            let key = format!("key-{slot}");
            unit.saga = Some(SagaWrite { kind: self.kind.clone(), key, change, aliases: Vec::new() });
            unit.sends.push(Outgoing { to: Destination::Queue("out".into()), message: self.message() });
            let batch = CommitBatch { owner: self.owner.clone(), joined: true, units: vec![unit], sent: Vec::new() };
            let store = self.store.clone();
            let task = async move {
                let mut transaction = store.begin().await.unwrap();
                let connection = transaction.raw().downcast_mut::<sqlx::SqliteConnection>().unwrap();
                if n == 0 {
                    let create = "create table if not exists ledger (entry text, amount integer)";
                    sqlx::query(create).execute(&mut *connection).await.unwrap();
                }
                sqlx::query("insert into ledger values (?, ?)").bind("paid").bind(5).execute(connection).await.unwrap();
                let reply = transaction.finish(batch).await;
                assert!(reply.outcomes.iter().all(|outcome| outcome.is_applied()), "{:?}", reply.outcomes);
            };
            // the first one makes the table
            if n == 0 { task.await } else { drop(tasks.spawn(task)) }
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        watch.tell(&format!("own sql, {at_once} at once"), units);
    }
}
