//! Runs the chaos endpoints until it is asked to end, or killed.
//!
//! Says `{"ready":true}` when it receives, and what it has counted when it ends in good order.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus_tests::{chaos::nodes::Place, program};
use serde_json::json;
use std::{sync::Arc, time::Duration};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// Only create the tables
    #[arg(long)]
    init: bool,
    /// Say every so many milliseconds how much was handled
    #[arg(long)]
    report_ms: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let place = &args.place;
    let endpoints = [place.ledger().build().await?, place.line().build().await?, place.chaos().build().await?];
    place.create_ledger().await?;
    if args.init {
        return Ok(());
    }
    let mut running = Vec::new();
    for endpoint in endpoints {
        running.push(Arc::new(endpoint.start().await?));
    }
    program::say(&json!({ "ready": true }));
    if let Some(period) = args.report_ms {
        let running = running.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(period)).await;
                program::say(&counts(&running));
            }
        });
    }
    program::terminated().await;
    // the one that sends first, so that what it sends still finds the others
    for endpoint in running.iter().rev() {
        endpoint.stop().await?;
    }
    program::say(&counts(&running));
    Ok(())
}

fn counts(running: &[Arc<sagabus::Running>]) -> serde_json::Value {
    let stats: Vec<_> = running.iter().map(|endpoint| endpoint.stats()).collect();
    let sum = |of: fn(&sagabus::Stats) -> u64| stats.iter().map(of).sum::<u64>();
    json!({
        "received": sum(|s| s.received),
        "handled": sum(|s| s.handled),
        "duplicates": sum(|s| s.duplicates),
        "stale": sum(|s| s.stale),
        "deferred": sum(|s| s.deferred),
        "dead": sum(|s| s.dead),
        "dispatched": sum(|s| s.dispatched),
        "relayed": sum(|s| s.relayed),
        "commits": sum(|s| s.commits),
    })
}
