//! One of several processes that share the work of one endpoint in one file, and say how much each has done.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::prelude::*;
use sagabus_tests::program;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

#[derive(Parser)]
struct Args {
    /// The database
    #[arg(long)]
    store: String,
    /// Only put so many messages into the queue
    #[arg(long)]
    preload: Option<u64>,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "fair.work")]
struct Work {
    key: u64,
    padding: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    count: u64,
    padding: String,
}

impl Saga for Counter {
    const NAME: &'static str = "counter";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Work>(|m| m.key);
    }
}

impl Handle<Work> for Counter {
    async fn handle(&mut self, m: Work, _: &mut SagaContext) -> Result {
        self.count += 1;
        self.padding = m.padding;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = Endpoint::builder("fair").transport(args.store.as_str()).saga::<Counter>().build().await?;
    if let Some(messages) = args.preload {
        let bus = endpoint.bus();
        for chunk in 0..messages.div_ceil(500) {
            let numbers = chunk * 500..messages.min((chunk + 1) * 500);
            for sent in bus.send_all(numbers.map(|n| Work { key: n % 5000, padding: "x".repeat(300) })).await? {
                sent?;
            }
        }
        return Ok(());
    }
    let running = endpoint.start().await?;
    program::say(&json!({ "ready": true }));
    let mut end = Box::pin(program::terminated());
    let start = std::time::Instant::now();
    while tokio::time::timeout(Duration::from_millis(50), &mut end).await.is_err() {
        let stats = running.stats();
        let at_ms = start.elapsed().as_millis() as u64;
        program::say(&json!({ "handled": stats.handled, "commits": stats.commits, "at_ms": at_ms }));
    }
    running.stop().await?;
    Ok(())
}
