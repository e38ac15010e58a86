//! Sends the chaos workload. Its log is the oracle of a run: each line is on the disk before what it announces happens.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{Bus, Message, MessageId, SendOptions};
use sagabus_tests::{
    chaos::{
        messages::{Add, AddOwn, Flaky, Half, Happened, Poison, Remind, Step},
        nodes::Place,
    },
    program::{self, SyncedLog},
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// How many messages; without end if 0
    #[arg(long)]
    messages: u64,
    /// Milliseconds between two messages
    #[arg(long, default_value_t = 0)]
    pace_ms: u64,
    /// The log
    #[arg(long)]
    log: PathBuf,
    /// Keys of the sagas
    #[arg(long, default_value_t = 3)]
    keys: u64,
}

/// What a log line says about a message, and the message.
struct Planned {
    log: Value,
    event: bool,
    again: bool,
    message: Kind,
}

enum Kind {
    Add(Add),
    AddOwn(AddOwn),
    Happened(Happened),
    Half(Half),
    Remind(Remind),
    Flaky(Flaky),
    Poison(Poison),
    Step(Step),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = args.place.generator().build().await?;
    let bus = endpoint.bus();
    let mut log = SyncedLog::append(&args.log)?;
    program::say(&json!({ "ready": true }));
    let mut end = Box::pin(program::terminated());
    let mut ending = false;
    let mut n = 0;
    // a round of ten is always finished: a torn pair would wait for ever
    while (args.messages == 0 || n < args.messages) && !(ending && n % 10 == 0) {
        if !ending {
            ending = tokio::time::timeout(Duration::from_millis(args.pace_ms), &mut end).await.is_ok();
        }
        send(&bus, &mut log, n, plan(n, args.keys)).await?;
        n += 1;
    }
    program::say(&json!({ "sent": n }));
    Ok(())
}

async fn send(bus: &Bus, log: &mut SyncedLog, n: u64, planned: Planned) -> anyhow::Result<()> {
    let id = MessageId(uuid::Uuid::now_v7());
    let mut line = planned.log;
    line["op"] = "try".into();
    line["n"] = n.into();
    line["id"] = id.to_string().into();
    log.write(&line)?;
    let mut result = deliver(bus, id, &planned.message, planned.event).await;
    let mut tries = 0;
    while let Err(error) = &result {
        // the same id again, until it is known to be there: the oracle has nothing unknown then
        anyhow::ensure!(error.is_unknown() || error.is_transient(), "sending {n}: {error:?}");
        tries += 1;
        anyhow::ensure!(tries < 100, "sending {n}, {tries} times: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        result = deliver(bus, id, &planned.message, planned.event).await;
    }
    log.write(&json!({ "op": "ok", "n": n }))?;
    if planned.again {
        // as somebody does who did not get the answer; it may fail, it must not take effect twice
        let _ = deliver(bus, id, &planned.message, planned.event).await;
    }
    Ok(())
}

/// Ten kinds in turn, so that any twenty messages have two of each.
fn plan(n: u64, keys: u64) -> Planned {
    let key = format!("k{}", n % keys);
    let round = n / 10;
    let (name, message) = match n % 10 {
        0 => ("add", Kind::Add(Add { key: key.clone(), n })),
        1 => ("step", Kind::Step(Step { key: format!("s{}", round % 2), n, fails: u32::from(round % 3 == 0) })),
        2 => ("own", Kind::AddOwn(AddOwn { key: key.clone(), n })),
        3 => ("happened", Kind::Happened(Happened { key: key.clone(), n })),
        4 => ("half", Kind::Half(Half { key: format!("p{round}"), n, left: true })),
        5 => ("remind", Kind::Remind(Remind { key: key.clone(), n, delay_ms: 40 + 30 * (round % 4) })),
        6 => ("flaky", Kind::Flaky(Flaky { n, fails: 1 + u32::from(round % 2 == 0) * 2 })),
        7 => ("poison", Kind::Poison(Poison { n })),
        8 => ("half", Kind::Half(Half { key: format!("p{round}"), n, left: false })),
        _ => ("step", Kind::Step(Step { key: format!("s{}", round % 2), n, fails: 0 })),
    };
    let body = match &message {
        Kind::Add(m) => json!(m),
        Kind::AddOwn(m) => json!(m),
        Kind::Happened(m) => json!(m),
        Kind::Half(m) => json!(m),
        Kind::Remind(m) => json!(m),
        Kind::Flaky(m) => json!(m),
        Kind::Poison(m) => json!(m),
        Kind::Step(m) => json!(m),
    };
    let key = body.get("key").cloned().unwrap_or_else(|| "".into());
    Planned { log: json!({ "kind": name, "key": key }), event: name == "happened", again: n % 4 == 3, message }
}

async fn deliver(bus: &Bus, id: MessageId, message: &Kind, event: bool) -> sagabus::core::Result<()> {
    async fn one<M: Message + Clone>(bus: &Bus, m: &M, options: SendOptions, event: bool) -> sagabus::core::Result<()> {
        match event {
            true => bus.publish_with(m.clone(), options).await,
            false => bus.send_with(m.clone(), options).await,
        }
        .map(drop)
    }
    let options = SendOptions::new().id(id);
    match message {
        Kind::Add(m) => one(bus, m, options, event).await,
        Kind::AddOwn(m) => one(bus, m, options, event).await,
        Kind::Happened(m) => one(bus, m, options, event).await,
        Kind::Half(m) => one(bus, m, options, event).await,
        Kind::Remind(m) => one(bus, m, options, event).await,
        Kind::Flaky(m) => one(bus, m, options, event).await,
        Kind::Poison(m) => one(bus, m, options, event).await,
        Kind::Step(m) => one(bus, m, options.key(&m.key), event).await,
    }
}
