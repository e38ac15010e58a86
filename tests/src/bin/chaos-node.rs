//! Runs the chaos endpoints until it is asked to end, or killed.
//!
//! Says `{"ready":true}` when it receives, and what it has counted when it ends in good order.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus_tests::{
    chaos::{messages::Add, nodes::Place},
    program,
};
use serde_json::json;
use std::{path::PathBuf, time::Duration};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// Only create the tables
    #[arg(long)]
    init: bool,
    /// Run these endpoints only
    #[arg(long, value_delimiter = ',', default_value = "ledger,line,chaos")]
    only: Vec<String>,
    /// Receive nothing; when this file appears, add a number to the saga `tally` of the key `one`, and end
    #[arg(long, requires = "add")]
    barrier: Option<PathBuf>,
    /// That number
    #[arg(long)]
    add: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let place = &args.place;
    if let (Some(file), Some(n)) = (&args.barrier, args.add) {
        let endpoint = place.generator().build().await?;
        program::say(&json!({ "ready": true }));
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        endpoint.bus().send(Add { key: "one".into(), n }).await?;
        program::say(&json!({ "sent": n }));
        return Ok(());
    }
    let mut endpoints = Vec::new();
    for (name, builder) in [("ledger", place.ledger()), ("line", place.line()), ("chaos", place.chaos())] {
        if args.init || args.only.iter().any(|only| only == name) {
            endpoints.push(builder.build().await?);
        }
    }
    if args.init {
        return place.create_ledger().await;
    }
    let mut running = Vec::new();
    for endpoint in endpoints {
        running.push(endpoint.start().await?);
    }
    program::say(&json!({ "ready": true }));
    program::terminated().await;
    // the one that sends first, so that what it sends still finds the others
    for endpoint in running.iter().rev() {
        endpoint.stop().await?;
    }
    program::say(&counts(&running));
    Ok(())
}

fn counts(running: &[sagabus::Running]) -> serde_json::Value {
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
