//! Counts share statements, and wake-ups are for what is due soon: what many failures cost a database.

#![cfg(feature = "postgres")]

mod postgres_support;

use postgres_support::Schema;
use sagabus_core::{
    CommitBatch, Disposition, Due, Envelope, Gate, Headers, Intent, MessageId, NodeId, Owner, Runtime, Store,
    TimerChange, TimerId, UnitOfWork,
};
use sagabus_outbox::postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use std::{sync::Arc, time::Duration};

struct Fixture {
    schema: Schema,
    store: PostgresStore,
    runtime: Runtime,
}

impl Fixture {
    async fn new() -> Self {
        let schema = Schema::new().await;
        let mut options = schema.options();
        options.application_name = schema.0.clone();
        let (store, runtime) = (schema.open(options).await, Runtime::system());
        Self { schema, store, runtime }
    }

    fn ids(&self, n: usize) -> Vec<MessageId> {
        (0..n).map(|_| MessageId(self.runtime.uuid())).collect()
    }

    async fn count(&self, message: MessageId) -> sagabus_core::Result<u32> {
        self.store.count_attempt("shop", "order", message).await
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.replace("{s}", &self.schema.0));
        sqlx::query(sql).fetch_one(&mut self.schema.connect().await).await.expect("ask").get(0)
    }

    /// Holds the row of a message, if there is one, until the connection goes.
    async fn hold(&self, message: MessageId) -> PgConnection {
        let mut holder = self.schema.connect().await;
        sqlx::raw_sql("begin").execute(&mut holder).await.expect("begin");
        let sql = format!("select 1 from {}.attempt where message_id=$1 for update", self.schema.0);
        sqlx::query(AssertSqlSafe(sql)).bind(message.0).execute(&mut holder).await.expect("lock");
        holder
    }

    async fn until_one_waits(&self) {
        let waiting = "select count(*) from pg_stat_activity where application_name='{s}' and wait_event_type='Lock'";
        sagabus_testkit::store::eventually(&self.runtime, "a count that waits for a lock", || async {
            (self.number(waiting).await == 1).then_some(())
        })
        .await;
    }

    async fn close(self) {
        self.store.close().await;
        self.schema.drop().await;
    }
}

/// What comes while a statement is under way is counted by the next one, all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_one_statement() {
    let fixture = Fixture::new().await;
    let (first, others) = (fixture.ids(1)[0], fixture.ids(200));
    assert_eq!(fixture.count(first).await.expect("count"), 1);
    let holder = fixture.hold(first).await;
    let held = async { assert_eq!(fixture.count(first).await.expect("count"), 2) };
    let others = async {
        fixture.until_one_waits().await;
        // polled in order: the last one lets the first one go
        let counts = futures::future::join_all(others.iter().map(|id| fixture.count(*id)));
        let (counts, _) = futures::join!(counts, holder.close());
        assert!(counts.iter().all(|count| count.as_ref().is_ok_and(|count| *count == 1)), "{counts:?}");
    };
    futures::join!(held, others);
    let of_others = "from {s}.attempt where attempts=1 and handler='order'";
    assert_eq!(fixture.number(&format!("select count(*) {of_others}")).await, 200);
    assert_eq!(fixture.number(&format!("select count(distinct xmin::text) {of_others}")).await, 1, "transactions");
    fixture.close().await;
}

/// An error is told to everybody whom it concerns, and to nobody later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_reach_all_who_shared() {
    let fixture = Fixture::new().await;
    let ids = fixture.ids(50);
    fixture.schema.run("alter table {s}.attempt rename to hidden".into()).await;
    for count in futures::future::join_all(ids.iter().map(|id| fixture.count(*id))).await {
        let error = count.expect_err("no table");
        assert!(error.to_string().contains("count attempts"), "{error}");
    }
    fixture.schema.run("alter table {s}.hidden rename to attempt".into()).await;
    let counts = futures::future::join_all(ids.iter().map(|id| fixture.count(*id))).await;
    assert!(counts.iter().all(|count| count.as_ref().is_ok_and(|count| *count == 1)), "{counts:?}");
    fixture.close().await;
}

/// Connections that die under a count: each call is answered, and what is not known to be counted counts one at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_count_once_at_most() {
    let fixture = Arc::new(Fixture::new().await);
    let ids = fixture.ids(8);
    let (mut told, mut unknown) = (0, 0);
    for _ in 0..10 {
        let holder = fixture.hold(ids[0]).await;
        let counts = futures::future::join_all(ids.iter().map(|id| fixture.count(*id)));
        let kills = told > 0;
        let kill = async {
            if kills {
                fixture.until_one_waits().await;
                fixture
                    .number(
                        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name='{s}'",
                    )
                    .await;
            }
            holder.close().await.expect("close");
        };
        let (counts, ()) = futures::join!(counts, kill);
        for count in counts {
            match count {
                Ok(_) => told += 1,
                Err(error) => {
                    assert!(error.is_unknown() || error.is_transient(), "{error}");
                    unknown += 1;
                }
            }
        }
    }
    assert!(told > 0 && unknown > 0, "{told} told, {unknown} unknown");
    let counted = fixture.number("select sum(attempts)::bigint from {s}.attempt").await;
    assert!((told..=told + unknown).contains(&counted), "{counted} counted, {told} told, {unknown} unknown");
    Arc::into_inner(fixture).expect("the last one").close().await;
}

/// A row that is due late wakes no reader of this process, one that is due soon does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_wake_nobody() {
    let fixture = Fixture::new().await;
    let owner = Owner { endpoint: "shop".into(), node: NodeId(fixture.runtime.uuid()) };
    let message = || {
        let headers = Headers::new(MessageId(fixture.runtime.uuid()), "test", Intent::Command, fixture.runtime.now());
        Envelope::new(headers, "x")
    };
    let commit = |timer: Duration, retry: Duration| {
        let mut unit = UnitOfWork::new("order".into(), MessageId(fixture.runtime.uuid()), Gate::Inbox);
        let id = TimerId(fixture.runtime.uuid());
        unit.timers.push(TimerChange::Set { id, due: Due::After(timer), message: Box::new(message()) });
        unit.disposition = Disposition::Deferred {
            message: Arc::new(message()),
            key: None,
            attempts: 1,
            delay: retry,
            reason: "failed".into(),
        };
        let batch = CommitBatch { owner: owner.clone(), joined: true, units: vec![unit], sent: Vec::new() };
        let store = &fixture.store;
        async move { assert!(store.commit(batch).await.outcomes[0].is_applied()) }
    };
    let woken = |timer, retry, at_most| {
        let (fixture, commit) = (&fixture, commit(timer, retry));
        async move {
            let start = fixture.runtime.elapsed();
            futures::join!(fixture.store.wait_due("shop", at_most), commit);
            fixture.runtime.elapsed() - start < at_most
        }
    };
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(20));
    let (soon, late) = (Duration::from_millis(900), Duration::from_secs(1));
    // who begins to listen is woken once: something may have been said before
    fixture.store.wait_due("shop", long).await;
    assert!(!woken(late, late, short).await);
    assert!(woken(soon, late, long).await, "by the timer");
    assert!(woken(late, soon, long).await, "by the retry");
    fixture.close().await;
}
