//! No hot statement reads a whole table, or a whole index, whatever the planner believes: without statistics, with
//! statistics of an empty table, and with fresh ones. The server's own counters tell.

#![cfg(feature = "postgres")]

#[path = "../postgres_support/mod.rs"]
mod postgres_support;
mod rare;
mod usual;

use postgres_support::Schema;
use sagabus_core::{
    CommitBatch, Destination, Gate, Intent, MessageId, NodeId, Outgoing, Owner, Runtime, Store, UnitOfWork,
};
use sqlx::{AssertSqlSafe, Row as _};
use std::time::Duration;
use usual::Load;

const KIND: &str = "shop/order";
const SAGAS: usize = 3_000;
const BATCH: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistics {
    None,
    OfEmptyTables,
    Fresh,
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

/// What was read of an index.
#[derive(Debug)]
struct Read {
    index: String,
    searches: i64,
    /// That the searches gave.
    entries: i64,
    /// That the searches touched, and the inserts.
    pages: i64,
    inserts: i64,
}

impl Read {
    /// A search goes down the tree and gives few entries; one that reads all of an index, or of a part that it shares with
    /// everybody, touches many pages for what it gives.
    fn is_whole(&self) -> bool {
        self.entries > i64::try_from(20 * SAGAS).expect("a number")
            || self.pages > 6 * (self.searches + self.entries) + 5 * self.inserts
    }
}

async fn reads(schema: &Schema) -> Vec<Read> {
    let sql = format!(
        "select i.indexrelname::text,i.idx_scan,i.idx_tup_read,b.idx_blks_hit+b.idx_blks_read,t.n_tup_ins+t.n_tup_upd from \
         pg_stat_user_indexes i join pg_statio_user_indexes b using (indexrelid) join pg_stat_user_tables t on \
         t.relid=i.relid where i.schemaname='{}' and i.idx_scan>0 order by 1",
        schema.0
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut schema.connect().await).await.expect("statistics");
    let read = |row: &sqlx::postgres::PgRow| Read {
        index: row.get(0),
        searches: row.get(1),
        entries: row.get(2),
        pages: row.get(3),
        inserts: row.get(4),
    };
    rows.iter().map(read).collect()
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
            // or the plans would be mended behind our back
            ["saga", "saga_alias", "queue", "timer", "retry", "parked", "dead_letter", "outbox", "attempt"]
                .map(|table| format!("alter table {{s}}.{table} set (autovacuum_enabled=off)"))
                .join(";"),
        )
        .await;
    if statistics == Statistics::OfEmptyTables {
        schema.run("vacuum analyze".into()).await;
    }
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    let mut load = Load { runtime, owner, instances: Vec::new() };
    // plans that are made while the tables are empty live on
    load.idle(&store).await;
    rare::run(&load, &store, 1).await;
    load.create(&store).await;
    if statistics == Statistics::Fresh {
        schema.run("vacuum analyze".into()).await;
    }
    load.run(&store).await;
    rare::run(&load, &store, SAGAS).await;
    // a backend hands in its counters when it ends
    store.close().await;
    load.runtime.sleep(Duration::from_millis(300)).await;
    assert_eq!(scans(&schema).await, before, "tables that were read as a whole, with {statistics:?} statistics");
    let reads = reads(&schema).await;
    assert!(reads.len() > 20, "too few indexes were used: {reads:?}");
    let whole: Vec<&str> = reads.iter().filter(|read| read.is_whole()).map(|read| read.index.as_str()).collect();
    assert!(whole.is_empty(), "read as a whole, with {statistics:?} statistics: {whole:?} of {reads:#?}");
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
    let load = Load { runtime, owner, instances: Vec::new() };
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
