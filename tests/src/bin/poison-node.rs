//! An endpoint whose queue holds messages that never work, and what the others notice of them.
//!
//! Half of the poison cannot be read, the other half fails each time. `rate` puts everything into the queue first, and
//! measures how fast the good ones get done. `delay` sends all the time to an ordered endpoint, and measures how long
//! messages of keys without poison are on their way.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Bus, Recoverability, RunningEndpoint, SendOptions, prelude::*};
use sagabus_tests::program;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(90);
/// Keys of the ordered endpoint. Poison has every eighth.
const KEYS: u64 = 64;

#[derive(Parser)]
struct Args {
    /// Where the messages go
    #[arg(long)]
    transport: String,
    /// Where state lies
    #[arg(long)]
    store: String,
    #[arg(long, value_enum)]
    measure: Measure,
    /// How many messages
    #[arg(long)]
    messages: u64,
    /// One of so many is poison; none if 0
    #[arg(long)]
    every: u64,
    /// Messages a second, where they are sent all the time
    #[arg(long, default_value_t = 500)]
    pace: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    Rate,
    Delay,
}

#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "poison.work")]
struct Work {
    /// Microseconds since 1970.
    at: u64,
    /// Its key has no poison.
    clean: bool,
    fails: bool,
    padding: String,
}

/// What claims to be the same.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "poison.work")]
struct Rubbish {
    nothing: String,
}

/// Milliseconds on the way: of keys without poison, and of the others.
type Delays = Arc<Mutex<(Vec<f64>, Vec<f64>)>>;

#[derive(Clone, Default)]
struct Worker(Delays);

impl Consume<Work> for Worker {
    async fn consume(&self, m: Work, _: &mut Context) -> Result {
        if m.fails {
            return Err(HandlerError::new("never"));
        }
        let delay = now().saturating_sub(m.at) as f64 / 1000.0;
        let mut delays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if m.clean { &mut delays.0 } else { &mut delays.1 };
        list.push(delay);
        Ok(())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn work(clean: bool, fails: bool) -> Work {
    Work { at: now(), clean, fails, padding: "x".repeat(200) }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let worker = Worker::default();
    let mut builder = Endpoint::builder("poison")
        .transport(args.transport.as_str())
        .store(args.store.as_str())
        .recoverability(Recoverability {
            immediate: 2,
            pause: Duration::from_millis(5),
            // long, so that whoever waits for it is found out
            delays: vec![Duration::from_secs(1)],
            ..Recoverability::default()
        })
        .service(worker.clone(), |s| s.on::<Work>())
        .route::<Work>("poison");
    if args.measure == Measure::Delay {
        builder = builder.ordered();
    }
    let endpoint = builder.build().await?;
    let said = match args.measure {
        Measure::Rate => {
            let poison = fill(&endpoint.bus(), args.messages, args.every).await?;
            let running = endpoint.start().await?;
            let rate = rate(&running, args.messages - poison).await?;
            buried_in_company(&running, poison).await?;
            running.stop().await?;
            json!({ "poison": poison, "per_s": rate.round() })
        }
        Measure::Delay => {
            let running = endpoint.start().await?;
            // until it has its partitions
            running.bus().send_with(work(false, false), SendOptions::new().key("first")).await?;
            handled(&running, 1).await?;
            let poison = trickle(&running.bus(), &args).await?;
            handled(&running, args.messages - poison + 1).await?;
            buried(&running, poison).await?;
            running.stop().await?;
            let mut delays = worker.0.lock().unwrap_or_else(PoisonError::into_inner);
            let delays = &mut *delays;
            json!({
                "poison": poison, "seen": delays.0.len(),
                "p50_ms": percentile(&mut delays.0, 50), "p99_ms": percentile(&mut delays.0, 99),
                "poisoned_p99_ms": percentile(&mut delays.1, 99),
            })
        }
    };
    program::say(&said);
    Ok(())
}

/// Puts messages into the queue, the poison spread among them; how much of it.
async fn fill(bus: &Bus, messages: u64, every: u64) -> anyhow::Result<u64> {
    let (chunk, mut sent, mut poison) = (1000, 0, 0);
    while sent < messages {
        let here = chunk.min(messages - sent);
        let bad = here.checked_div(every).unwrap_or(0);
        for outcome in bus.send_all((0..here - bad).map(|_| work(true, false))).await? {
            outcome?;
        }
        for n in 0..bad {
            match n % 2 {
                0 => bus.send(Rubbish { nothing: String::new() }).await?,
                _ => bus.send(work(false, true)).await?,
            };
        }
        (sent, poison) = (sent + here, poison + bad);
    }
    Ok(poison)
}

/// Good messages a second, from the first commit on.
async fn rate(running: &RunningEndpoint, good: u64) -> anyhow::Result<f64> {
    let first = handled(running, 1).await?;
    let (since, left) = (Instant::now(), good - first);
    handled(running, good).await?;
    Ok(left as f64 / since.elapsed().as_secs_f64())
}

/// Waits until so many are committed as handled; how many are.
async fn handled(running: &RunningEndpoint, goal: u64) -> anyhow::Result<u64> {
    until(|| running.stats().handled, goal, "handled").await
}

async fn buried(running: &RunningEndpoint, goal: u64) -> anyhow::Result<u64> {
    until(|| running.stats().dead, goal, "dead").await
}

/// Waits until so much is dead, while some messages go well: an endpoint at which everything fails slows down to a message a
/// second.
async fn buried_in_company(running: &RunningEndpoint, goal: u64) -> anyhow::Result<()> {
    let since = Instant::now();
    while running.stats().dead < goal {
        anyhow::ensure!(since.elapsed() < LIMIT, "{} of {goal} are dead after {LIMIT:?}", running.stats().dead);
        running.bus().send(work(true, false)).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn until(count: impl Fn() -> u64, goal: u64, what: &str) -> anyhow::Result<u64> {
    let since = Instant::now();
    loop {
        let now = count();
        if now >= goal {
            return Ok(now);
        }
        anyhow::ensure!(since.elapsed() < LIMIT, "{now} of {goal} messages are {what} after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends at a pace; how much of it was poison.
async fn trickle(bus: &Bus, args: &Args) -> anyhow::Result<u64> {
    let mut sends = JoinSet::new();
    let (since, mut poison) = (Instant::now(), 0);
    for n in 0..args.messages {
        let due = Duration::from_micros(n * 1_000_000 / args.pace);
        tokio::time::sleep(due.saturating_sub(since.elapsed())).await;
        let bad = args.every > 0 && n % args.every == 0;
        poison += u64::from(bad);
        // the poisoned keys are the same ones where there is no poison
        let at = if bad { (n / args.every.max(1)) * 8 % KEYS } else { n % KEYS };
        let (bus, key) = (bus.clone(), SendOptions::new().key(format!("k{at}")));
        sends.spawn(async move {
            match (bad, poison % 2) {
                (true, 0) => bus.send_with(Rubbish { nothing: String::new() }, key).await,
                (fails, _) => bus.send_with(work(at % 8 != 0, fails), key).await,
            }
        });
        while let Some(sent) = sends.try_join_next() {
            sent??;
        }
    }
    while let Some(sent) = sends.join_next().await {
        sent??;
    }
    Ok(poison)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).map_or(0.0, |value| (value * 10.0).round() / 10.0)
}
