//! Runs the chaos endpoints until it is asked to end, or killed.
//!
//! Says `{"ready":true}` when it receives, and what it has counted when it ends in good order.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::EndpointBuilder;
use sagabus_tests::{
    chaos::{broker, messages::Add, nodes::Place},
    program,
};
use serde_json::json;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long a server may be away: a broker that was killed reads its logs again, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// Only create the tables
    #[arg(long)]
    init: bool,
    /// Only remove what the endpoints have left on a broker
    #[arg(long)]
    remove: bool,
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
    if args.remove {
        return broker::remove(&place.transport).await;
    }
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
    let all: [(&str, Make); 3] = [("ledger", Place::ledger), ("line", Place::line), ("chaos", Place::chaos)];
    let wanted = all.into_iter().filter(|(name, _)| args.init || args.only.iter().any(|only| only == name));
    let wanted: Vec<Make> = wanted.map(|(_, make)| make).collect();
    // all of them before one starts: an event that is published before somebody has subscribed reaches nobody
    let mut endpoints = Vec::new();
    for make in wanted {
        endpoints.push((make, patiently(async || make(place).build().await).await?));
    }
    if args.init {
        return place.create_ledger().await;
    }
    let mut running = Vec::new();
    for (make, endpoint) in endpoints {
        running.push(match endpoint.start().await {
            Err(error) if error.is_transient() => patiently(async || make(place).build().await?.start().await).await?,
            other => other?,
        });
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

type Make = fn(&Place) -> EndpointBuilder;

/// Starting again is what a program does whose server goes away while it starts, or that was stopped for so long that
/// the server has given up its connection.
async fn patiently<T>(start: impl AsyncFn() -> sagabus::ports::Result<T>) -> sagabus::ports::Result<T> {
    let since = Instant::now();
    loop {
        match start().await {
            Err(error) if error.is_transient() && since.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

fn counts(running: &[sagabus::RunningEndpoint]) -> serde_json::Value {
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
        "dropped": format!("{:?}", stats.iter().map(|s| &s.dropped).collect::<Vec<_>>()),
    })
}
