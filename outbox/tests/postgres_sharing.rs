//! Handlers share a transaction and its commit, and nothing else: no failure, no setting, no patience.

#![cfg(feature = "postgres")]

mod postgres_support;

use postgres_support::{Schema, own};
use sagabus_core::{CommitBatch, Gate, MessageId, NodeId, Outcome, Owner, Runtime, Store, Transaction, UnitOfWork};
use sagabus_outbox::postgres::PostgresStore;
use sqlx::{PgConnection, Row as _};
use std::{sync::Arc, time::Duration};

struct Fixture {
    schema: Schema,
    store: Arc<PostgresStore>,
    runtime: Runtime,
}

impl Fixture {
    /// With so many connections for handlers.
    async fn new(transactions: usize) -> Self {
        let schema = Schema::new().await;
        let mut options = schema.options();
        options.transactions = transactions;
        let store = Arc::new(schema.open(options).await);
        Self { schema, store, runtime: Runtime::system() }
    }

    fn batch(&self, message: MessageId) -> CommitBatch {
        let owner = Owner { endpoint: "shop".into(), node: NodeId(uuid::Uuid::nil()) };
        let unit = UnitOfWork::new("order".into(), message, Gate::Inbox);
        CommitBatch { owner, joined: true, units: vec![unit], sent: Vec::new() }
    }

    fn id(&self) -> MessageId {
        MessageId(self.runtime.uuid())
    }

    async fn rows(&self) -> Vec<String> {
        let rows =
            sqlx::query("select key from own_row order by key").fetch_all(&mut self.schema.connect().await).await;
        rows.expect("rows").iter().map(|row| row.get(0)).collect()
    }

    async fn close(self) {
        self.store.close().await;
        self.schema.drop().await;
    }
}

fn connection(transaction: &mut Box<dyn Transaction>) -> &mut PgConnection {
    transaction.raw().downcast_mut().expect("a connection")
}

async fn text(transaction: &mut Box<dyn Transaction>, sql: &'static str) -> Option<String> {
    sqlx::query(sql).fetch_one(connection(transaction)).await.expect("ask").get(0)
}

const XACT: &str = "select pg_current_xact_id()::text";

/// What a handler does in `a_failure_is_not_shared`.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Well,
    Drops,
    Breaks,
    Again,
}

/// (what it did, its transaction, how it ended)
type Told = (Way, String, Option<Outcome>);

async fn handler(fixture: Arc<Fixture>, n: usize, way: Way, known: MessageId) -> Told {
    let mut transaction = fixture.store.begin().await.expect("begin");
    assert_eq!(text(&mut transaction, "select nullif(current_setting('app.tenant',true),'')").await, None);
    assert_eq!(text(&mut transaction, "select current_setting('statement_timeout')").await.as_deref(), Some("2s"));
    let xact = text(&mut transaction, XACT).await.expect("an id");
    for sql in ["set local app.tenant='somebody'", "set app.tenant='somebody'", "set local statement_timeout='1s'"] {
        sqlx::query(sql).execute(connection(&mut transaction)).await.expect("set");
    }
    own::put(connection(&mut transaction), &format!("{n:02}"), "x").await;
    let id = if way == Way::Again { known } else { fixture.id() };
    match way {
        Way::Drops => return (way, xact, None),
        Way::Breaks => {
            // the transaction is aborted, as far as the server is concerned
            sqlx::query("select 1/0").execute(connection(&mut transaction)).await.expect_err("a division by zero");
            return (way, xact, None);
        }
        Way::Well | Way::Again => {}
    }
    let outcome = transaction.finish(fixture.batch(id)).await.outcomes.remove(0);
    (way, xact, Some(outcome))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_not_shared_and_no_setting_is() {
    let fixture = Arc::new(Fixture::new(1).await);
    let known = fixture.id();
    assert!(fixture.store.commit(fixture.batch(known)).await.outcomes[0].is_applied());
    let ways = |n: usize| match n % 4 {
        1 => Way::Drops,
        3 => Way::Breaks,
        _ => Way::Well,
    };
    let mut all: Vec<Told> =
        futures::future::join_all((0..20).map(|n| handler(fixture.clone(), n, ways(n), known))).await;
    all.sort_by(|a, b| a.1.cmp(&b.1));
    for (way, _, outcome) in &all {
        assert_eq!(outcome.as_ref().is_some_and(Outcome::is_applied), *way == Way::Well, "{outcome:?}");
    }
    let transactions: std::collections::BTreeSet<&str> = all.iter().map(|told| told.1.as_str()).collect();
    assert!(transactions.len() < 10, "{} transactions for ten commits: nothing was shared", transactions.len());
    let even: Vec<String> = (0..20).step_by(2).map(|n| format!("{n:02}")).collect();
    assert_eq!(fixture.rows().await, even);

    // one that was handled before: it is told so, and whoever shared with it runs again and loses nothing
    let mut again = futures::future::join_all(
        (20..26).map(|n| handler(fixture.clone(), n, if n == 22 { Way::Again } else { Way::Well }, known)),
    )
    .await;
    let (_, _, outcome) = again.remove(2);
    assert!(matches!(outcome, Some(Outcome::Duplicate)), "{outcome:?}");
    let mut applied = 0;
    for (_, _, outcome) in again {
        match outcome {
            Some(Outcome::Applied { .. }) => applied += 1,
            Some(Outcome::Stale) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fixture.rows().await.len(), 10 + applied, "the rows of those that were applied, and no others");
    Arc::into_inner(fixture).expect("the last one").close().await;
}

/// Somebody who takes his time holds up nobody who is not in his transaction already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_holds_up_nobody_else() {
    let fixture = Arc::new(Fixture::new(6).await);
    // as many as there are desks while handlers are quick
    let mut slow = Vec::new();
    for n in 0..4 {
        let mut transaction = fixture.store.begin().await.expect("begin");
        own::put(connection(&mut transaction), &format!("slow{n}"), "x").await;
        slow.push(transaction);
    }
    let quick = async {
        for n in 0..20 {
            let mut transaction = fixture.store.begin().await.expect("begin");
            own::put(connection(&mut transaction), &format!("{n}"), "x").await;
            let outcomes = transaction.finish(fixture.batch(fixture.id())).await.outcomes;
            assert!(outcomes[0].is_applied(), "{outcomes:?}");
        }
    };
    let done = fixture.runtime.timeout(Duration::from_millis(1500), quick).await;
    assert!(done.is_some(), "twenty quick ones waited for four slow ones");
    for transaction in slow {
        let outcomes = transaction.finish(fixture.batch(fixture.id())).await.outcomes;
        assert!(outcomes[0].is_applied(), "they were slow, but not too slow: {outcomes:?}");
    }
    assert_eq!(fixture.rows().await.len(), 24);
    Arc::into_inner(fixture).expect("the last one").close().await;
}
