//! Partitions of days come ahead of time and go with the horizon; and what a role needs that only works.

#![cfg(feature = "postgres")]

mod postgres_support;

use postgres_support::{Schema, own, url};
use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, Intent, MessageId, NodeId, Outgoing, Owner, Runtime, Store,
    UnitOfWork,
};
use sagabus_outbox::postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Row as _};
use std::time::Duration;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

async fn number(schema: &Schema, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.replace("{s}", &schema.0));
    sqlx::query(sql).fetch_one(&mut schema.connect().await).await.expect("count").get(0)
}

fn batch(runtime: &Runtime) -> CommitBatch {
    let id = || MessageId(runtime.uuid());
    let mut unit = UnitOfWork::new("order".into(), id(), Gate::Inbox);
    let headers = Headers::new(id(), "work.item", Intent::Command, runtime.now());
    unit.sends.push(Outgoing { to: Destination::Queue("work".into()), message: Envelope::new(headers, &b"x"[..]) });
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    CommitBatch { owner, joined: true, units: vec![unit], sent: Vec::new() }
}

/// Partitions of days from here on, and how many are older than so many days.
async fn partitions(schema: &Schema, table: &str, older: i64) -> (i64, i64) {
    let of = |condition: &str| {
        format!(
            "select count(*) from pg_inherits i join pg_class c on c.oid=i.inhrelid where \
             i.inhparent='{{s}}.{table}'::regclass and substring(c.relname from '[0-9]+$')::bigint-extract(epoch from \
             now())::bigint/86400 {condition}"
        )
    };
    (number(schema, &of(">=0")).await, number(schema, &of(&format!("<-{older}"))).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_come_ahead_and_go_with_the_horizon() {
    let (schema, runtime) = (Schema::new().await, Runtime::system());
    schema.store().await.close().await;
    for table in ["inbox", "queue_dedup"] {
        let (ahead, _) = partitions(&schema, table, 15).await;
        assert!(ahead >= 8, "{ahead} partitions of {table} from today on");
    }
    // as if this had run for a month: days at the edge of two horizons, and far behind it
    let today = number(&schema, "select (extract(epoch from now())::bigint/86400)::bigint").await;
    for (day, rows) in [(today - 30, 7), (today - 16, 5), (today - 13, 3)] {
        for (table, columns) in [("inbox", "'h','e'"), ("queue_dedup", "1")] {
            schema
                .run(format!(
                    "create table {{s}}.{table}_{day} partition of {{s}}.{table} for values from ({day}) to ({}); insert \
                     into {{s}}.{table} select {day},gen_random_uuid(),{columns} from generate_series(1,{rows})",
                    day + 1
                ))
                .await;
        }
    }
    // one that should be there is gone, as after a restore of some tables only
    schema.run(format!("drop table {{s}}.inbox_{today}; drop table {{s}}.queue_dedup_{}", today + 3)).await;
    let store = PostgresStore::open(&schema.url(), schema.options()).await.expect("open");
    store.queues().expect("queues").declare("work").await.expect("declare");
    let outcomes = store.commit(batch(&runtime)).await.outcomes;
    assert!(outcomes[0].is_applied(), "a missing day is made: {outcomes:?}");
    assert_eq!(store.prune(WEEK).await.expect("prune"), 12, "the inbox rows of two days");
    for table in ["inbox", "queue_dedup"] {
        let (ahead, old) = partitions(&schema, table, 15).await;
        assert!(ahead >= 8 && old == 0, "{table}: {ahead} ahead, {old} old ones");
    }
    assert_eq!(
        number(&schema, "select count(*) from {s}.inbox").await,
        4,
        "three of a day that is kept, and the new one"
    );
    store.close().await;
    schema.drop().await;
}

/// What the documentation grants is enough: to check, to handle, to send, with own SQL, and to prune where nothing is to
/// be dropped. It is not enough to change a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_only_works() {
    let (schema, runtime) = (Schema::new().await, Runtime::system());
    schema.store().await.close().await;
    let role = format!("r_{}", schema.0);
    // as docs/postgres.md says
    schema
        .run(format!(
            "create role {role} login password 'only-works';grant usage on schema {{s}} to {role};grant \
             select,insert,update,delete on all tables in schema {{s}} to {role};grant usage on all sequences in schema \
             {{s}} to {role}"
        ))
        .await;
    let (_, place) = url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("user@host");
    let join = if place.contains('?') { '&' } else { '?' };
    let by_role = format!("postgres://{role}:only-works@{place}{join}options[search_path]={}", schema.0);
    let store = PostgresStore::open(&by_role, schema.options()).await.expect("open");
    store.migrate().await.expect("nothing is to be migrated");
    store.check().await.expect("check");
    store.queues().expect("queues").declare("work").await.expect("declare");
    let outcomes = store.commit(batch(&runtime)).await.outcomes;
    assert!(outcomes[0].is_applied(), "{outcomes:?}");
    let mut transaction = store.begin().await.expect("begin");
    own::put(transaction.raw().downcast_mut().expect("a connection"), "k", "v").await;
    let outcomes = transaction.finish(batch(&runtime)).await.outcomes;
    assert!(outcomes[0].is_applied(), "{outcomes:?}");
    store.prune(WEEK).await.expect("prune");
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&by_role).await.expect("connect");
    let sql = AssertSqlSafe(format!("drop table {}.inbox", schema.0));
    sqlx::query(sql).execute(&mut connection).await.expect_err("it owns nothing");
    drop(connection);
    store.close().await;
    schema.run(format!("drop owned by {role};drop role {role}")).await;
    schema.drop().await;
}
