//! `cargo xtask diff`: the same random operations give equal answers on every store, and leave equal contents.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::bed::backend::{Backend, Servers, Store, forget};
use super::bed::keep::Ground;
use super::bed::place::{Layout, lines};
use super::bed::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::rng::fresh_seed;
use crate::verdict::{Outcome, Timer, Verdict};

/// What an operation may take, on average, before the run is given up.
const PATIENCE: Duration = Duration::from_millis(100);
/// What the verdict passes on of what the program says.
const COUNTS: [&str; 9] =
    ["ops", "batches", "units", "largest_batch", "outcomes", "answers", "dumps", "dumped", "rows_read"];

/// Compares the memory store, SQLite and PostgreSQL (counts: stores, ops, batches, units, largest_batch, outcomes, answers,
/// dumps, dumped, rows_read, differences)
#[derive(Debug, Args)]
pub struct Diff {
    /// How many operations
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
        let ground = Ground::prepare(Self::NAME, self.keep.as_deref())?;
        let dir = ground.run(&format!("diff-{seed}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = servers.prepare(&dir, Layout::Joined)?;
        let mut command = Command::new(programs.path("diff")?);
        command.arg("--sqlite").arg(format!("sqlite://{}", dir.join("diff.db").display()));
        if self.backend.store == Store::Postgres {
            command.arg("--postgres").arg(&urls.store);
        }
        command.args(["--ops", &self.ops.to_string(), "--seed", &seed.to_string()]);
        command.args(["--dump-every", &self.dump_every.to_string()]);
        let mut program = Proc::spawn("diff", &mut command, &dir)?;
        let patience = PATIENCE * u32::try_from(self.ops).unwrap_or(u32::MAX) + Duration::from_secs(60);
        let ended = program.expect_success(patience);
        forget(&dir)?;
        ended?;
        let said = lines(&program).pop().context("it said nothing")?;
        if self.keep.is_none() {
            std::fs::remove_dir_all(&dir).context("remove the database")?;
        }
        timer.count("stores", said["stores"].clone());
        for name in COUNTS {
            timer.count(name, said[name].clone());
        }
        let difference = said["difference"].as_str();
        timer.count("differences", u64::from(difference.is_some()));
        if let Some(difference) = difference {
            println!("{difference}");
        }
        Ok(timer.finish(if difference.is_some() {
            Outcome::Fail
        } else if said["ops"] != self.ops || idle(&said) {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
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
