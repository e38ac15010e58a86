//! Sends a thousand commands at once, a few of them to a queue that does not exist. Whoever is blamed must be one of those.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Bus, MessageId, SendOptions};
use sagabus_tests::{
    chaos::{
        messages::Note,
        nodes::Place,
        plan::{Planned, plan},
    },
    program::{self, SyncedLog},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// How many
    #[arg(long, default_value_t = 1000)]
    messages: usize,
    /// How many more of them go to nobody
    #[arg(long, default_value_t = 7)]
    strays: usize,
    /// The number of the first one; a multiple of ten
    #[arg(long)]
    first: u64,
    /// The generator's log: these are accepted messages like any other
    #[arg(long)]
    log: PathBuf,
}

/// What was asked of one of them, and what came of it.
enum Sent {
    Good(u64, Result<(), String>),
    /// Why it was refused, if it was.
    Stray(Option<String>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    // which nobody was ever built as
    let endpoint = args.place.generator().route::<Note>("nowhere").build().await?;
    let bus = endpoint.bus();
    let mut log = SyncedLog::append(&args.log)?;
    // without what is ordered: at once there is no order
    let numbers = (args.first..).filter(|n| !matches!(n % 10, 1 | 9)).take(args.messages);
    let planned: Vec<(u64, Planned)> = numbers.map(|n| (n, plan(n, 40, 1))).collect();
    let ids: Vec<MessageId> = planned.iter().map(|_| MessageId(uuid::Uuid::now_v7())).collect();
    let tries = planned.iter().zip(&ids).map(|((n, planned), id)| {
        let mut line = planned.log.clone();
        line["op"] = "try".into();
        line["n"] = (*n).into();
        line["id"] = id.to_string().into();
        line
    });
    log.write_all(&tries.collect::<Vec<Value>>())?;
    let every = args.messages / (args.strays + 1);
    let mut tasks = Vec::new();
    let count = planned.len();
    for (at, ((n, planned), id)) in planned.into_iter().zip(ids).enumerate() {
        if at % every == every / 2 && at / every < args.strays {
            let bus = bus.clone();
            tasks.push(tokio::spawn(async move { Sent::Stray(stray(&bus).await) }));
        }
        let bus = bus.clone();
        tasks.push(tokio::spawn(async move { Sent::Good(n, insist(&bus, &planned, id).await) }));
    }
    let (mut accepted, mut blamed, mut wrong) = (Vec::new(), 0, BTreeSet::new());
    for task in tasks {
        match task.await? {
            Sent::Good(n, Ok(())) => accepted.push(json!({ "op": "ok", "n": n })),
            Sent::Good(n, Err(error)) => {
                wrong.insert(format!("{n}: {error}"));
            }
            Sent::Stray(Some(reason)) if reason.contains("nowhere") => blamed += 1,
            Sent::Stray(other) => {
                wrong.insert(format!("a stray: {other:?}"));
            }
        }
    }
    log.write_all(&accepted)?;
    program::say(&json!({ "sent": count, "strays": args.strays, "blamed": blamed, "wrong": wrong }));
    Ok(())
}

/// The same id again, until it is known to be there.
async fn insist(bus: &Bus, planned: &Planned, id: MessageId) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match planned.deliver(bus, id).await {
            Ok(()) => return Ok(()),
            Err(error) if (error.is_unknown() || error.is_transient()) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// What the refusal says.
async fn stray(bus: &Bus) -> Option<String> {
    let note = Note { from: "stray".into(), key: String::new(), n: 0 };
    let started = Instant::now();
    loop {
        match bus.send_with(note.clone(), SendOptions::new()).await {
            Ok(_) => return None,
            Err(error) if (error.is_unknown() || error.is_transient()) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Some(error.to_string()),
        }
    }
}
