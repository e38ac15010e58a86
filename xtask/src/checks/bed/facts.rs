//! What is to be seen of a run from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::db::Db;

/// A message that the generator announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub n: i64,
    /// Which of the ten kinds.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Whether it was accepted; if not, nobody knows.
    pub accepted: bool,
}

/// A row of the effect ledger.
#[derive(Debug, Clone)]
pub struct Effect {
    /// Grows in commit order.
    pub id: i64,
    /// What was done.
    pub kind: String,
    /// The key of the message.
    pub key: String,
    /// The number of the message.
    pub n: i64,
    /// Milliseconds by the database's clock.
    pub at: i64,
    /// Not before this.
    pub due: Option<i64>,
}

/// A saga as stored.
#[derive(Debug, Clone)]
pub struct SagaRow {
    /// `endpoint/saga`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// How many units it has applied.
    pub version: i64,
    /// Its state.
    pub state: String,
}

/// A row that a trigger wrote.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Grows in commit order.
    pub seq: i64,
    /// The table.
    pub tbl: String,
    /// What happened.
    pub op: String,
    /// Of a saga.
    pub kind: Option<String>,
    /// Of a saga.
    pub key: Option<String>,
    /// Of a saga.
    pub instance: Option<String>,
    /// Of a saga.
    pub old_version: Option<i64>,
    /// Of a saga.
    pub new_version: Option<i64>,
    /// Of a timer.
    pub due: Option<i64>,
    /// When.
    pub at: i64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// By number.
    pub sent: Vec<Sent>,
    /// In commit order.
    pub effects: Vec<Effect>,
    /// Those that live.
    pub sagas: Vec<SagaRow>,
    /// (reason, number of the message).
    pub dead: Vec<(String, i64)>,
    /// In commit order.
    pub audit: Vec<Audit>,
    /// How often a handler was started with a message that it had been started with before.
    pub redeliveries: u64,
    /// Outbox rows that another process took over, to send them.
    pub relay_sends: u64,
    /// The processes that started handlers.
    pub pids: BTreeSet<u32>,
    /// Keys of the ordered endpoint whose order nobody promised: they were moved to another partition meanwhile.
    pub moved: BTreeSet<String>,
}

#[derive(Deserialize)]
struct LogLine {
    op: String,
    n: i64,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    key: String,
}

impl Facts {
    /// Reads them.
    pub fn read(store: &mut Db, log: &Path, tap: &Path) -> Result<Self> {
        let dead: Vec<(String, String)> =
            store.rows(&format!("select reason, {} from dead_letter order by id", store.text("body")))?;
        let number = |body: &str| serde_json::from_str::<Value>(body).ok()?["n"].as_i64();
        let (redeliveries, pids) = read_tap(tap);
        let audit = read_audit(store)?;
        Ok(Self {
            sent: read_log(log)?,
            effects: read_effects(store)?,
            sagas: read_sagas(store)?,
            dead: dead.into_iter().map(|(reason, body)| (reason, number(&body).unwrap_or(-1))).collect(),
            relay_sends: audit.iter().filter(|row| row.tbl == "outbox").count() as u64,
            audit,
            redeliveries,
            pids,
            moved: BTreeSet::new(),
        })
    }
}

fn read_effects(store: &mut Db) -> Result<Vec<Effect>> {
    let order = store.commit_order();
    let rows = store.rows(&format!("select {order}, kind, key, n, at, due from effect order by {order}"))?;
    Ok(rows.into_iter().map(|(id, kind, key, n, at, due)| Effect { id, kind, key, n, at, due }).collect())
}

fn read_sagas(store: &mut Db) -> Result<Vec<SagaRow>> {
    let state = store.text("state");
    let rows = store.rows(&format!("select kind, key, version, {state} from saga order by kind, key"))?;
    Ok(rows.into_iter().map(|(kind, key, version, state)| SagaRow { kind, key, version, state }).collect())
}

fn read_audit(store: &mut Db) -> Result<Vec<Audit>> {
    let rows = store
        .rows("select seq, tbl, op, kind, key, instance, old_version, new_version, due, at from audit order by seq")?;
    let audit = |(seq, tbl, op, kind, key, instance, old_version, new_version, due, at)| Audit {
        seq,
        tbl,
        op,
        kind,
        key,
        instance,
        old_version,
        new_version,
        due,
        at,
    };
    Ok(rows.into_iter().map(audit).collect())
}

/// The generator's log. Its last line may be torn: the generator may be killed too.
fn read_log(path: &Path) -> Result<Vec<Sent>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut sent: BTreeMap<i64, Sent> = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok()) {
        match line.op.as_str() {
            "try" => {
                sent.insert(line.n, Sent { n: line.n, kind: line.kind, key: line.key, accepted: false });
            }
            _ => {
                if let Some(message) = sent.get_mut(&line.n) {
                    message.accepted = true;
                }
            }
        }
    }
    Ok(sent.into_values().collect())
}

fn read_tap(path: &Path) -> (u64, BTreeSet<u32>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut starts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut pids = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [handler, message, attempts, pid] = words[..] {
            // a retry after a failure is not a redelivery
            if attempts == "0" {
                *starts.entry((handler, message)).or_default() += 1;
            }
            pids.extend(pid.parse::<u32>());
        }
    }
    (starts.values().map(|starts| starts - 1).sum(), pids)
}
