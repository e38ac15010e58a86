//! What a server does to its clients, and cancelled handlers to a pool: nothing is lost, nothing happens twice, and no
//! transaction stays open.

#![cfg(feature = "postgres")]

mod postgres_support;

use postgres_support::{Schema, own};
use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, InstanceId, Intent, MessageId, NodeId, Outcome, Outgoing, Owner,
    Runtime, SHARDS, SagaChange, SagaWrite, Store, UnitOfWork,
};
use sagabus_outbox::postgres::PostgresStore;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const KIND: &str = "shop/order";

struct Fixture {
    schema: Schema,
    store: Arc<PostgresStore>,
    runtime: Runtime,
    owner: Owner,
}

impl Fixture {
    async fn new() -> Self {
        let schema = Schema::new().await;
        let mut options = schema.options();
        options.application_name = schema.0.clone();
        let (store, runtime) = (Arc::new(schema.open(options).await), Runtime::system());
        let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
        Self { schema, store, runtime, owner }
    }

    fn batch(&self, unit: UnitOfWork) -> CommitBatch {
        CommitBatch { owner: self.owner.clone(), joined: true, units: vec![unit], sent: Vec::new() }
    }

    fn unit(&self) -> UnitOfWork {
        UnitOfWork::new("order".into(), MessageId(self.runtime.uuid()), Gate::Inbox)
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.replace("{s}", &self.schema.0));
        sqlx::query(sql).fetch_one(&mut self.schema.connect().await).await.expect("count").get(0)
    }

    async fn close(self) {
        self.store.close().await;
        self.schema.drop().await;
    }
}

/// sqlx 0.9: a `begin` that is dropped can leave a transaction open on a pooled connection. Ours never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancelled_handlers_leaves_no_transaction_open() {
    let fixture = Arc::new(Fixture::new().await);
    let (mut begun, mut cut) = (0, 0);
    for round in 0..40 {
        let handlers = (0..10).map(|n| {
            let fixture = fixture.clone();
            async move {
                let handler = async {
                    let mut transaction = fixture.store.begin().await.expect("begin");
                    let connection: &mut PgConnection = transaction.raw().downcast_mut().expect("a connection");
                    own::put(connection, &format!("{round}-{n}"), "never").await;
                    sqlx::query("select pg_sleep(0.02)").execute(connection).await.expect("sleep");
                };
                // from before the connection is there to within the handler's last statement
                let limit = Duration::from_micros(fixture.runtime.random() % 25_000);
                fixture.runtime.timeout(limit, handler).await.is_some()
            }
        });
        for done in futures::future::join_all(handlers).await {
            begun += 1;
            cut += u32::from(!done);
        }
    }
    assert!(cut > begun / 2, "{cut} of {begun} were cancelled");
    let open =
        "select count(*) from pg_stat_activity where application_name='{s}' and state like 'idle in transaction%'";
    for _ in 0..100 {
        if fixture.number(open).await == 0 {
            break;
        }
        fixture.runtime.sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.number(open).await, 0);
    // every connection of the pool is usable, and in no transaction but its own
    for round in 0..10 {
        let mut transaction = fixture.store.begin().await.expect("begin");
        let connection: &mut PgConnection = transaction.raw().downcast_mut().expect("a connection");
        assert_eq!(own::get(connection, &format!("{round}-1")).await, None);
        let outcome = transaction.finish(fixture.batch(fixture.unit())).await.outcomes.remove(0);
        assert!(outcome.is_applied(), "{outcome:?}");
    }
    assert_eq!(fixture.number("select count(*) from {s}.own_row").await, 0);
    Arc::into_inner(fixture).expect("the last one").close().await;
}

/// Every connection is killed over and over; each message takes effect once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_and_repeat_nothing() {
    const WORKERS: usize = 4;
    const EACH: i64 = 40;
    let fixture = Arc::new(Fixture::new().await);
    let queues = fixture.store.queues().expect("queues");
    queues.declare("out").await.expect("declare");
    let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let killer = fixture.runtime.spawn({
        let (fixture, stop, kills) = (fixture.clone(), stop.clone(), kills.clone());
        async move {
            let mut connection = fixture.schema.connect().await;
            let sql = format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name='{}' and random()<0.5",
                fixture.schema.0
            );
            while !stop.load(Ordering::Relaxed) {
                let row = sqlx::query(AssertSqlSafe(sql.clone())).fetch_one(&mut connection).await.expect("kill");
                kills.fetch_add(row.get::<i64, _>(0).unsigned_abs(), Ordering::Relaxed);
                fixture.runtime.sleep(Duration::from_millis(15)).await;
            }
        }
    });
    // until enough was killed, however fast the machine is
    let work = (0..WORKERS).map(|worker| {
        let (fixture, kills) = (fixture.clone(), kills.clone());
        let more = move |done| done < EACH || kills.load(Ordering::Relaxed) < 40;
        work(fixture, format!("k{worker}"), worker % 2 == 0, more)
    });
    let done = futures::future::join_all(work).await;
    let unknown: u64 = done.iter().map(|(_, unknown)| unknown).sum();
    stop.store(true, Ordering::Relaxed);
    killer.join().await;
    let total: i64 = done.iter().map(|(count, _)| count).sum();
    let own: i64 = done.iter().step_by(2).map(|(count, _)| count).sum();
    assert_eq!(fixture.number("select sum(version)::bigint from {s}.saga").await, total);
    assert_eq!(fixture.number("select count(*) from {s}.inbox").await, total);
    assert_eq!(fixture.number("select count(*) from {s}.own_row").await, own);
    let all: Vec<u16> = (0..SHARDS).collect();
    let mut sent: Vec<MessageId> =
        queues.read("out", &all, 0, 10_000).await.expect("read").iter().map(|row| row.message_id).collect();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len() as i64, total);
    let kills = kills.load(Ordering::Relaxed);
    println!("{kills} connections killed, {unknown} outcomes unknown, {total} units");
    assert!(kills > 20, "only {kills} kills: nothing was shown");
    drop(queues);
    Arc::into_inner(fixture).expect("the last one").close().await;
}

/// Applies units to one saga, each until it is applied or was; returns how many, and how many outcomes were unknown.
async fn work(fixture: Arc<Fixture>, key: String, own_sql: bool, more: impl Fn(i64) -> bool) -> (i64, u64) {
    let instance = InstanceId(fixture.runtime.uuid());
    let (mut unknown, mut version) = (0, 0);
    while more(version) {
        let mut unit = fixture.unit();
        let state = format!("{version}").into();
        let change = match version {
            0 => SagaChange::Create { instance, state, schema: 1, origin: None },
            _ => SagaChange::Update { instance, version, state, schema: 1 },
        };
        unit.saga = Some(SagaWrite { kind: KIND.into(), key: key.clone(), change, aliases: Vec::new() });
        let headers = Headers::new(MessageId(fixture.runtime.uuid()), "out", Intent::Command, fixture.runtime.now());
        unit.sends.push(Outgoing { to: Destination::Queue("out".into()), message: Envelope::new(headers, &b"x"[..]) });
        loop {
            match attempt(&fixture, &unit, own_sql).await {
                Some(Outcome::Applied { .. } | Outcome::Duplicate) => break,
                Some(Outcome::Stale) => panic!("nobody else writes {key}"),
                Some(Outcome::Failed(error)) => {
                    assert!(error.is_transient() || error.is_unknown(), "{error:?}");
                    unknown += u64::from(error.is_unknown());
                }
                None => {}
            }
        }
        version += 1;
    }
    (version, unknown)
}

/// One try; none if the handler's own SQL failed.
async fn attempt(fixture: &Fixture, unit: &UnitOfWork, own_sql: bool) -> Option<Outcome> {
    if !own_sql {
        return Some(fixture.store.commit(fixture.batch(unit.clone())).await.outcomes.remove(0));
    }
    let mut transaction = fixture.store.begin().await.ok()?;
    let connection: &mut PgConnection = transaction.raw().downcast_mut().expect("a connection");
    let insert = sqlx::query("insert into own_row (key,value) values ($1,'x')").bind(unit.message_id.to_string());
    match insert.execute(connection).await {
        Ok(_) => {}
        // applied before, when the answer was lost: the gate says so
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
            drop(transaction);
            return Some(fixture.store.commit(fixture.batch(unit.clone())).await.outcomes.remove(0));
        }
        Err(_) => return None,
    }
    Some(transaction.finish(fixture.batch(unit.clone())).await.outcomes.remove(0))
}

/// A handler that holds its transaction for too long loses it, by the server's hand too, and blocks nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_not_held_for_ever() {
    let schema = Schema::new().await;
    let mut options = schema.options();
    options.transaction_limit = Duration::from_millis(200);
    let store = schema.open(options).await;
    let runtime = Runtime::system();
    let mut transaction = store.begin().await.expect("begin");
    own::put(transaction.raw().downcast_mut().expect("a connection"), "k", "v").await;
    runtime.sleep(Duration::from_millis(600)).await;
    // the lock is free already, though the handler has not noticed
    own::put(&mut schema.connect().await, "k", "other").await;
    let unit = UnitOfWork::new("order".into(), MessageId(runtime.uuid()), Gate::Inbox);
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let batch = CommitBatch { owner, joined: true, units: vec![unit], sent: Vec::new() };
    let outcome = transaction.finish(batch).await.outcomes.remove(0);
    assert!(matches!(&outcome, Outcome::Failed(error) if error.is_transient()), "{outcome:?}");
    assert_eq!(own::get(&mut schema.connect().await, "k").await.as_deref(), Some("other"));
    store.close().await;
    schema.drop().await;
}

/// What the server refuses of one unit harms no other; nobody waits for a table that is not there; errors keep secrets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_and_contained() {
    let fixture = Fixture::new().await;
    fixture.schema.run("alter table {s}.saga add check (key<>'bad')".into()).await;
    let unit = |key: &str| {
        let mut unit = fixture.unit();
        let change = SagaChange::Create {
            instance: InstanceId(fixture.runtime.uuid()),
            state: "x".into(),
            schema: 1,
            origin: None,
        };
        unit.saga = Some(SagaWrite { kind: KIND.into(), key: key.into(), change, aliases: Vec::new() });
        unit
    };
    let mut batch = fixture.batch(unit("a"));
    batch.units.extend([unit("bad"), unit("b"), fixture.unit()]);
    let outcomes = fixture.store.commit(batch).await.outcomes;
    assert!(outcomes[0].is_applied() && outcomes[2].is_applied() && outcomes[3].is_applied(), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Outcome::Failed(error) if !error.is_unknown() && !error.is_transient()));
    assert_eq!(fixture.number("select count(*) from {s}.inbox").await, 3);
    fixture.close().await;

    let schema = Schema::new().await;
    let store = PostgresStore::open(&schema.url(), schema.options()).await.expect("open");
    let error = store.check().await.expect_err("no tables");
    assert!(error.to_string().contains("migrate"), "{error}");
    store.close().await;
    schema.drop().await;
    let mut wrong = sagabus_outbox::postgres::PostgresOptions::default();
    wrong.connect_limit = Duration::from_secs(2);
    let error = PostgresStore::open("postgres://u:secret@127.0.0.1:1/d", wrong).await.expect_err("nobody is there");
    assert!(error.is_transient() && !format!("{error:?}").contains("secret"), "{error:?}");
}

/// Behind a pooler there are no named statements, no session settings and no LISTEN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_enough() {
    let schema = Schema::new().await;
    let mut options = schema.options();
    options.pooler = true;
    let store = schema.open(options).await;
    store.check().await.expect("check");
    let runtime = Runtime::system();
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    for _ in 0..3 {
        let unit = || UnitOfWork::new("order".into(), MessageId(runtime.uuid()), Gate::Inbox);
        let batch = |unit| CommitBatch { owner: owner.clone(), joined: true, units: vec![unit], sent: Vec::new() };
        assert!(store.commit(batch(unit())).await.outcomes[0].is_applied());
        let mut transaction = store.begin().await.expect("begin");
        own::put(transaction.raw().downcast_mut().expect("a connection"), "k", "v").await;
        assert!(transaction.finish(batch(unit())).await.outcomes[0].is_applied());
        store.wait_due("shop", Duration::from_millis(5)).await;
    }
    store.close().await;
    schema.drop().await;
}
