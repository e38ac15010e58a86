//! Without a store: sends with delays, fails some of what comes and has it retried later, and says what came of all of it.
//! The broker may be hurt meanwhile.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Bus, Endpoint, MessageId, SendOptions, prelude::*};
use sagabus_tests::{chaos::nodes::Place, program};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What expires while the broker starts is passed on by it only three minutes later.
const PATIENCE: Duration = Duration::from_secs(420);
/// When those are tried again that failed at first.
const RETRY: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// How many
    #[arg(long, default_value_t = 300)]
    messages: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "chaos.later")]
struct Later {
    n: u64,
}

/// When each came first and was handled, and how many runs failed.
static CAME: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());
static FAILED: Mutex<u64> = Mutex::new(0);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fails_at_first(n: u64) -> bool {
    n.is_multiple_of(5)
}

async fn later(m: Later, ctx: &mut Context) -> Result {
    if fails_at_first(m.n) && ctx.attempts() == 0 {
        *lock(&FAILED) += 1;
        return Err(HandlerError::retry_in(RETRY, "not yet"));
    }
    lock(&CAME).entry(m.n).or_insert_with(Instant::now);
    Ok(())
}

/// The same id again, until it is known to be on its way; the moment before which it must not come.
async fn insist(bus: &Bus, n: u64) -> anyhow::Result<Instant> {
    let delay = Duration::from_secs(2 + n % 13);
    let id = MessageId(uuid::Uuid::now_v7());
    let started = Instant::now();
    loop {
        let options = SendOptions::new().id(id).after(delay);
        match bus.send_with(Later { n }, options).await {
            // that of the first try may be the one that comes
            Ok(_) => return Ok(started + delay),
            Err(error) if (error.is_unknown() || error.is_transient()) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = Endpoint::builder("later").transport(args.place.transport.as_str()).at_least_once().on(later);
    let endpoint = endpoint.build().await?;
    let bus = endpoint.bus();
    let running = endpoint.start().await?;
    let mut due = BTreeMap::new();
    for n in 0..args.messages {
        due.insert(n, insist(&bus, n).await?);
    }
    program::say(&json!({ "ready": true }));
    let started = Instant::now();
    while lock(&CAME).len() < due.len() && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await?;
    let came = lock(&CAME).clone();
    let lost = due.keys().filter(|n| !came.contains_key(n)).count();
    let early = due.iter().filter(|(n, due)| came.get(n).is_some_and(|came| came < *due)).count();
    let failed = *lock(&FAILED);
    program::say(&json!({ "sent": due.len(), "lost": lost, "early": early, "failed": failed }));
    Ok(())
}
