//! The operator's side of [positions](sagabus::admin::Position): how far an endpoint has come in Kafka's topics, and the decision
//! that it shall handle messages again. See docs/kafka.md, "Replay".
//!
//! ```text
//! cargo run --example position --features postgres -- list shop --store postgres://…
//! cargo run --example position --features postgres -- reset shop kafka:sagabus.cmd.shop 3 --to 0 \
//!     --by ann --why "the prices of May were wrong" --store postgres://…
//! cargo run --example position --features postgres -- audit shop --store postgres://…
//! ```
//!
//! `all` in the place of the partition means all of them. Without `--store` it asks `SAGABUS_STORE`, so that a password need
//! not stand in the list of processes.

use sagabus::{
    Endpoint,
    admin::{Cursor, PositionReset},
};
use std::collections::HashMap;

type Failed = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "position list ENDPOINT | audit ENDPOINT | reset ENDPOINT LOG PARTITION --to OFFSET --by WHO --why WHY; \
                     each with --store URL, or SAGABUS_STORE set";

/// Words, and options with their values.
fn arguments() -> Result<(Vec<String>, HashMap<String, String>), Failed> {
    let (mut words, mut options) = (Vec::new(), HashMap::new());
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        match word.strip_prefix("--") {
            Some(name) => {
                let value = given.next().ok_or_else(|| format!("--{name} has no value; usage: {USAGE}"))?;
                options.insert(name.to_string(), value);
            }
            None => words.push(word),
        }
    }
    Ok((words, options))
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let (words, options) = arguments()?;
    let option = |name: &str| options.get(name).cloned().ok_or_else(|| format!("--{name} is missing; usage: {USAGE}"));
    let store = option("store").or_else(|missing| std::env::var("SAGABUS_STORE").map_err(|_| missing))?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [action, endpoint, rest @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    // an endpoint without handlers receives nothing: it only opens the store
    let admin = Endpoint::builder(*endpoint).store(store).build().await?.admin().ok_or("there is no store")?;
    match (*action, rest) {
        ("list", []) => {
            for position in admin.positions().await? {
                println!("{} {} {}", position.partition.log, position.partition.partition, position.handled_below);
            }
        }
        ("audit", []) => {
            for entry in admin.audit(&Cursor::start(), 1000).await?.items {
                let (by, action, subject) = (entry.by, entry.action, entry.subject);
                println!("{} {by}: {action} {subject} {} -> {}: {}", entry.at.0, entry.before, entry.after, entry.why);
            }
        }
        ("reset", [log, partition]) => {
            let partition = match *partition {
                "all" => None,
                number => Some(number.parse().map_err(|_| format!("{number} is no partition"))?),
            };
            let to = option("to")?.parse().ok().filter(|to| *to >= 0).ok_or("--to is no offset")?;
            let (log, by, why) = (log.to_string(), option("by")?, option("why")?);
            let count = admin.reset_positions(&PositionReset { log, partition, to, by, why }).await?;
            if count == 0 {
                return Err("nothing is known of that partition: `position list` shows which ones are".into());
            }
            println!("{count} positions are at {to} or before; now set the group's offsets, and start the endpoint");
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}
