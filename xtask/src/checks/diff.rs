//! `cargo xtask diff`: the same random operations give equal answers on every store, and leave equal contents.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::fixture::artifacts::Artifacts;
use super::fixture::backend::{Backend, Servers, Store, forget};
use super::fixture::environment::{Layout, lines};
use super::fixture::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict};
use sagabus_testkit::rng::fresh_seed;

/// So many operations have stores of their own: what is due in days is never taken away, and would be looked at each time.
const STRETCH: u64 = 10_000;
/// What an operation may take, on average, before the run is given up.
const PATIENCE: Duration = Duration::from_millis(100);
/// What the verdict passes on of what the program says.
const COUNTS: [&str; 9] =
    ["ops", "batches", "units", "largest_batch", "outcomes", "answers", "dumps", "dumped", "rows_read"];

/// Compares the memory store, SQLite and PostgreSQL (counts: stretches, stores, ops, batches, units,
/// largest_batch, outcomes, answers, dumps, dumped, rows_read, differences)
#[derive(Debug, Args)]
pub struct Diff {
    /// How many operations, in stretches of 10,000 with fresh stores and the next seed
    #[arg(long, default_value_t = 100_000)]
    ops: u64,
    /// After how many of them everything that the stores hold is compared
    #[arg(long, default_value_t = 500)]
    dump_every: u64,
    /// sqlite, or postgres, which is both of them; each beside the memory store
    #[arg(long, default_value = "postgres")]
    backend: Backend,
    /// What the operations are drawn from. Ids of messages carry the day, so that a run is repeated exactly on the same day
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the SQLite file in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Diff {
    const NAME: &'static str = "diff";

    fn run(self) -> Result<Verdict> {
        if self.backend.broker.is_some() || self.ops == 0 || self.dump_every == 0 {
            bail!("stores are compared, without a broker, and by at least one operation");
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        let programs = Programs::build(Build::Chaos(None))?;
        let servers = Servers::up(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let mut all = Totals::default();
        let mut left = self.ops;
        while left > 0 && all.difference.is_none() {
            let ops = left.min(STRETCH);
            // the first stretch has the run's own seed, so that one alone is repeated by it
            let seed = seed.wrapping_add(all.stretches);
            let dir = artifacts.run(&format!("diff-{seed}"));
            all.add(self.stretch(&programs, &servers, &dir, seed, ops)?);
            left -= ops;
        }
        all.report(&mut timer);
        if let Some(difference) = &all.difference {
            println!("{difference}");
        }
        Ok(timer.finish(if all.difference.is_some() {
            Outcome::Fail
        } else if all.said["ops"] != self.ops || idle(&all.said) {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Diff {
    /// So many operations on stores of their own: what the program says of them.
    fn stretch(&self, programs: &Programs, servers: &Servers, dir: &Path, seed: u64, ops: u64) -> Result<Value> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = servers.prepare(dir, Layout::Joined)?;
        let mut command = Command::new(programs.path("diff")?);
        command.arg("--sqlite").arg(format!("sqlite://{}", dir.join("diff.db").display()));
        if self.backend.store == Store::Postgres {
            command.arg("--postgres").arg(&urls.store);
        }
        command.args(["--ops", &ops.to_string(), "--seed", &seed.to_string()]);
        command.args(["--dump-every", &self.dump_every.to_string()]);
        let mut program = Proc::spawn("diff", &mut command, dir)?;
        let patience = PATIENCE * u32::try_from(ops).unwrap_or(u32::MAX) + Duration::from_secs(60);
        let ended = program.expect_success(patience);
        forget(dir)?;
        ended?;
        let said = lines(&program).pop().context("it said nothing")?;
        if self.keep.is_none() {
            std::fs::remove_dir_all(dir).context("remove the database")?;
        }
        println!("seed {seed}: {ops} operations, {} answers, {} lines of contents", said["answers"], said["dumped"]);
        Ok(said)
    }
}

/// What all stretches came to.
#[derive(Default)]
struct Totals {
    stretches: u64,
    said: Value,
    difference: Option<String>,
}

impl Totals {
    fn add(&mut self, said: Value) {
        self.stretches += 1;
        self.difference = said["difference"].as_str().map(str::to_owned);
        match self.said {
            Value::Null => self.said = said,
            _ => sum(&mut self.said, &said),
        }
    }

    fn report(&self, timer: &mut Timer) {
        timer.count("stretches", self.stretches).count("stores", self.said["stores"].clone());
        for name in COUNTS {
            timer.count(name, self.said[name].clone());
        }
        timer.count("differences", u64::from(self.difference.is_some()));
    }
}

/// Adds the numbers of one object to those of another, by their names; of `largest_batch` it takes the larger.
fn sum(all: &mut Value, one: &Value) {
    let (Some(all), Some(one)) = (all.as_object_mut(), one.as_object()) else { return };
    for (name, value) in one {
        let slot = all.entry(name.clone()).or_insert(Value::from(0));
        match (slot.as_u64(), value.as_u64()) {
            (Some(a), Some(b)) if name == "largest_batch" => *slot = a.max(b).into(),
            (Some(a), Some(b)) => *slot = (a + b).into(),
            _ if value.is_object() => {
                if !slot.is_object() {
                    *slot = Value::Object(serde_json::Map::new());
                }
                sum(slot, value);
            }
            _ => {}
        }
    }
}

/// Whether something that should have happened did not: an outcome, or an operation.
fn idle(said: &Value) -> bool {
    let happened = |list: &str, name: &str| said[list][name].as_u64().is_some_and(|count| count > 0);
    let outcomes = ["applied", "duplicate", "stale"].iter().all(|name| happened("outcomes", name));
    let names =
        ["commit", "transaction", "due", "read", "enqueue", "load", "outbox_own", "outbox_orphans", "prune", "tidy"];
    !outcomes || said["outcomes"]["failed"].is_u64() || !names.iter().all(|name| happened("by_name", name))
}
