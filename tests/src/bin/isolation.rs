//! Measures what a key that sleeps and a key that fails do to all others: the same load with and without them.
//!
//! Two times are taken per message: until its handler starts, and until a message that the handler sent is handled,
//! which takes a commit in between.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::prelude::*;
use sagabus_tests::program;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

#[derive(Parser)]
struct Args {
    /// The database
    #[arg(long)]
    store: String,
    /// Messages a second
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Length of each half, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long the sleeping handler sleeps, in seconds
    #[arg(long, default_value_t = 10)]
    sleep: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "isolation.ping")]
struct Ping {
    key: String,
    sent_us: u64,
    sleep_s: u64,
    fail: bool,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "isolation.pong")]
struct Pong {
    sent_us: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Slot {
    pings: u64,
}

/// Microseconds until the handler started, and until its message was handled; of the present half.
static STARTED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static DONE: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static FAILURES: AtomicU64 = AtomicU64::new(0);
static SLEPT: AtomicU64 = AtomicU64::new(0);

impl Saga for Slot {
    const NAME: &'static str = "slot";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Ping>(|m| m.key.clone());
    }
}

impl Handle<Ping> for Slot {
    async fn handle(&mut self, m: Ping, ctx: &mut SagaContext) -> Result {
        if m.fail {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            return Err(HandlerError::new("this key always fails"));
        }
        if m.sleep_s > 0 {
            tokio::time::sleep(Duration::from_secs(m.sleep_s)).await;
            SLEPT.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        note(&STARTED, m.sent_us);
        self.pings += 1;
        ctx.send(Pong { sent_us: m.sent_us });
        Ok(())
    }
}

async fn pong(m: Pong, _: &mut Context) -> Result {
    note(&DONE, m.sent_us);
    Ok(())
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn note(times: &Mutex<Vec<u64>>, sent_us: u64) {
    times.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(now_us().saturating_sub(sent_us));
}

fn quantiles(times: &Mutex<Vec<u64>>) -> Value {
    let mut times = std::mem::take(&mut *times.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(0.0, |us| *us as f64 / 1000.0);
    json!({ "messages": times.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(0.99999) })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let policy = Recoverability { delays: vec![Duration::from_millis(500); 60], ..Recoverability::default() };
    let endpoint = Endpoint::builder("isolation")
        .transport(args.store.as_str())
        .recoverability(policy)
        .saga::<Slot>()
        .on(pong)
        .build()
        .await?;
    let running = endpoint.start().await?;
    let bus = running.bus();
    let ping = |key: String, sleep_s, fail| Ping { key, sent_us: now_us(), sleep_s, fail };
    // what is only made at first use is not measured
    load(&bus, args.rate, 1).await?;
    let _ = (quantiles(&STARTED), quantiles(&DONE));
    load(&bus, args.rate, args.seconds).await?;
    let baseline = (quantiles(&STARTED), quantiles(&DONE));
    bus.send(ping("failing".into(), 0, true)).await?;
    bus.send(ping("sleeper".into(), args.sleep, false)).await?;
    // behind the two, under their keys
    bus.send(ping("failing".into(), 0, true)).await?;
    bus.send(ping("sleeper".into(), 0, false)).await?;
    load(&bus, args.rate, args.seconds.saturating_sub(1)).await?;
    let (early, failures) = (SLEPT.load(Ordering::Relaxed), FAILURES.load(Ordering::Relaxed));
    let disturbed = (quantiles(&STARTED), quantiles(&DONE));
    let asleep = early == 0;
    program::say(&json!({
        "baseline": { "start": baseline.0, "done": baseline.1 },
        "disturbed": { "start": disturbed.0, "done": disturbed.1 },
        "asleep": asleep, "failures": failures,
    }));
    Ok(())
}

/// Sends at a steady rate, each message at its own moment, so that a slow one does not hide those behind it.
async fn load(bus: &Bus, rate: u64, seconds: u64) -> anyhow::Result<()> {
    let period = Duration::from_secs(1) / u32::try_from(rate)?;
    let mut ticks = tokio::time::interval(period);
    let mut sending = Vec::new();
    for n in 0..rate * seconds {
        ticks.tick().await;
        let (bus, message) =
            (bus.clone(), Ping { key: format!("k{}", n % 50), sent_us: now_us(), sleep_s: 0, fail: false });
        sending.push(tokio::spawn(async move { bus.send(message).await }));
    }
    for sent in sending {
        sent.await??;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}
