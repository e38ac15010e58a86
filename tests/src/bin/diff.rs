//! The same random operations on the memory store, on SQLite and on PostgreSQL; says what was compared, and the first
//! difference.

use anyhow::Context as _;
use clap::Parser;
use sagabus::{
    ports::{Runtime, Store},
    store::{
        memory::MemoryStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use sagabus_testkit::diff::{Settings, compare};
use sagabus_tests::program;
use serde_json::json;
use std::sync::Arc;

#[derive(Parser)]
struct Args {
    /// A SQLite file, which must not exist
    #[arg(long)]
    sqlite: Option<String>,
    /// A PostgreSQL database whose schema `sagabus` must not exist
    #[arg(long)]
    postgres: Option<String>,
    /// How many operations
    #[arg(long)]
    ops: u64,
    /// After how many of them everything is compared
    #[arg(long)]
    dump_every: u64,
    /// What they are drawn from
    #[arg(long)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let runtime = Runtime::system();
    let mut stores: Vec<(String, Arc<dyn Store>)> =
        vec![("memory".into(), Arc::new(MemoryStore::new(runtime.clone())))];
    // answers are compared, not what a power failure leaves: nothing is synced
    if let Some(url) = &args.sqlite {
        let store = SqliteStore::open(url, SqliteOptions::new(runtime.clone()).volatile()).await?;
        stores.push(("sqlite".into(), store));
    }
    if let Some(url) = &args.postgres {
        let store = PostgresStore::open(url, PostgresOptions::new(runtime).volatile()).await?;
        stores.push(("postgres".into(), Arc::new(store)));
    }
    for (name, store) in &stores {
        store.migrate().await.with_context(|| format!("migrate {name}"))?;
    }
    let settings = Settings { seed: args.seed, ops: args.ops, dump_every: args.dump_every };
    let (counts, difference) = compare(stores.clone(), settings).await?;
    program::say(&json!({
        "stores": stores.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "ops": counts.ops.values().sum::<u64>(), "by_name": counts.ops, "batches": counts.ops.get("commit"),
        "units": counts.units, "largest_batch": counts.largest, "outcomes": counts.outcomes,
        "answers": counts.answers, "dumps": counts.dumps, "dumped": counts.dumped, "rows_read": counts.rows,
        "difference": difference.map(|difference| difference.to_string()),
    }));
    for (_, store) in stores {
        store.close().await;
    }
    Ok(())
}
