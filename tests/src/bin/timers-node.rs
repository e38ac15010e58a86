//! An endpoint with very many timers.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Timestamp, prelude::*};
use sagabus_tests::program;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, SystemTime};

/// Timers that one message sets.
const PER_SAGA: u64 = 50;

#[derive(Parser)]
struct Args {
    /// The database
    #[arg(long)]
    store: String,
    /// Set so many timers, all due at one moment
    #[arg(long, default_value_t = 0)]
    arm: u64,
    /// That moment, from now
    #[arg(long, default_value_t = 3600)]
    due_in_s: u64,
    /// The key of the first saga that sets them
    #[arg(long, default_value_t = 0)]
    first_key: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "timers.arm")]
struct Arm {
    key: u64,
    count: u64,
    due: SystemTime,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "timers.tick")]
struct Tick {
    due: SystemTime,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "timers.probe")]
struct Probe;

/// Counts its ticks, and those that came too early by its process's clock.
#[derive(Default, Serialize, Deserialize)]
struct Clock {
    armed: u64,
    ticks: u64,
    early: u64,
}

impl Saga for Clock {
    const NAME: &'static str = "clock";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Arm>(|m| m.key).timeout::<Tick>();
    }
}

impl Handle<Arm> for Clock {
    async fn handle(&mut self, m: Arm, ctx: &mut SagaContext) -> Result {
        self.armed += m.count;
        for _ in 0..m.count {
            ctx.timeout_at(Timestamp::from(m.due), Tick { due: m.due });
        }
        Ok(())
    }
}

impl Handle<Tick> for Clock {
    async fn handle(&mut self, m: Tick, _: &mut SagaContext) -> Result {
        self.ticks += 1;
        self.early += u64::from(SystemTime::now() < m.due);
        Ok(())
    }
}

async fn probe(_: Probe, _: &mut Context) -> Result {
    program::say(&json!({ "probed": true }));
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = Endpoint::builder("timers").transport(args.store.as_str()).saga::<Clock>().on(probe).build().await?;
    let running = endpoint.start().await?;
    program::say(&json!({ "ready": true }));
    let bus = running.bus();
    bus.send(Probe).await?;
    let due = SystemTime::now() + Duration::from_secs(args.due_in_s);
    if args.arm > 0 {
        let sagas = args.first_key..args.first_key + args.arm.div_ceil(PER_SAGA);
        for sent in bus.send_all(sagas.map(|key| Arm { key, count: PER_SAGA, due })).await? {
            sent?;
        }
        program::say(&json!({ "due_us": Timestamp::from(due).0 }));
    }
    program::terminated().await;
    running.stop().await?;
    Ok(())
}
