//! What sagabus costs, beside the best program without it, in the same run. See `docs/performance.md`.
#![allow(clippy::disallowed_methods, reason = "a benchmark stands outside of the bus: it measures real time")]

mod latency;
mod measure;
mod payload;
mod report;
mod twin;

use clap::Parser;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    #[arg(long, default_value_t = 200)]
    batch: usize,
    #[arg(long, default_value_t = 1)]
    ahead: usize,
    #[arg(long)]
    packed: bool,
    #[arg(long)]
    own_sql: bool,
    #[arg(long)]
    load: Option<f64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = std::env::temp_dir().join(format!("sagabus-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let settings =
        twin::Settings { batch: args.batch, ahead: args.ahead, packed: args.packed, own_sql: args.own_sql };
    let side = twin::run(&dir.join("twin.db"), args.messages, args.keys, settings, args.load).await;
    std::fs::remove_dir_all(&dir)?;
    let side = side?;
    println!(
        "batch {} ahead {} packed {}: {:.0}/s {:.1} us cpu, {} commits, rss {} peak {}, p50 {} p99 {}",
        args.batch, args.ahead, args.packed, side.per_second(), side.cpu_us, side.commits, side.rss_mb, side.peak_mb,
        side.latency(0.5), side.latency(0.99)
    );
    Ok(())
}
