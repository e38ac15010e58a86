//! `cargo xtask poison`: messages that never work, and what the others notice of them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::fixture::artifacts::Artifacts;
use super::fixture::backend::{Backend, Servers, store_of};
use super::fixture::environment::{Layout, lines};
use super::fixture::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict};

const LIMIT: Duration = Duration::from_secs(240);
/// One message of so many.
const EVERY: &str = "100";

/// Runs an endpoint with and without poison in turn, and compares (counts: runs, messages, poison, dead, clean_per_s,
/// poison_per_s, percent, clean_p99_ms, poison_p99_ms, poisoned_keys_p99_ms; medians)
#[derive(Debug, Args)]
pub struct Poison {
    /// A store behind a broker: kafka+postgres, rabbitmq+postgres, …
    #[arg(long, default_value = "kafka+postgres")]
    backend: Backend,
    /// How often each is run
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Messages of each run that measures the rate
    #[arg(long, default_value_t = 60_000)]
    messages: u64,
    /// Messages of each run that measures delays, 500 a second
    #[arg(long, default_value_t = 7_500)]
    trickle: u64,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep dead letters, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// What one run said, and what lies in its store.
struct Seen {
    said: Value,
    poison: u64,
    dead: u64,
}

impl Check for Poison {
    const NAME: &'static str = "poison";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        if self.backend.broker.is_none() || self.runs == 0 {
            bail!("this needs a broker, and a run");
        }
        let programs = Programs::build(Build::ReleaseOf(&["poison-node", "chaos-node"], self.backend.broker))?;
        let servers = Servers::up(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let mut table = Table::new(["run", "poison", "dead letters", "messages/s", "p99 ms", "p99 ms of its keys"]);
        let (mut poison, mut dead) = (0, 0);
        let (mut rates, mut delays, mut own) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2], Vec::new());
        let number = |seen: &Seen, name: &str| seen.said[name].as_f64().with_context(|| format!("no {name}"));
        // the first one warms up whatever is cold
        for run in 0..=self.runs {
            for (which, every) in [(0, "0"), (1, EVERY)] {
                let rate = self.once(&programs, &servers, &artifacts, &format!("rate{run}-{every}"), every)?;
                let delay = self.once(&programs, &servers, &artifacts, &format!("delay{run}-{every}"), every)?;
                let (per_s, p99) = (number(&rate, "per_s")?, number(&delay, "p99_ms")?);
                let of_its_keys = number(&delay, "poisoned_p99_ms")?;
                let cells = [run.to_string(), (rate.poison + delay.poison).to_string()];
                let rest = [(rate.dead + delay.dead) as f64, per_s, p99, of_its_keys].map(|n| n.to_string());
                table.row(cells.into_iter().chain(rest));
                poison += rate.poison + delay.poison;
                dead += rate.dead + delay.dead;
                if run > 0 {
                    rates[which].push(per_s);
                    delays[which].push(p99);
                    own.extend((which == 1).then_some(of_its_keys));
                }
            }
        }
        println!("{table}");
        let [clean, poisoned] = rates.map(median);
        let [clean_p99, poison_p99] = delays.map(median);
        let (percent, own) = ((100.0 * poisoned / clean.max(1.0)).round(), median(own));
        timer.count("runs", self.runs).count("messages", self.messages).count("poison", poison).count("dead", dead);
        timer.count("clean_per_s", clean).count("poison_per_s", poisoned).count("percent", percent);
        timer.count("clean_p99_ms", clean_p99).count("poison_p99_ms", poison_p99);
        timer.count("poisoned_keys_p99_ms", own);
        Ok(timer.finish(if dead != poison || percent < 80.0 || poison_p99 > 2.0 * clean_p99 + 20.0 {
            Outcome::Fail
        } else if poison == 0 || own < 500.0 {
            // the keys of the poison themselves must have waited for it
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Poison {
    fn once(
        &self,
        programs: &Programs,
        servers: &Servers,
        artifacts: &Artifacts,
        name: &str,
        every: &str,
    ) -> Result<Seen> {
        let dir = artifacts.run(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = servers.prepare(&dir, Layout::Split)?;
        let mut node = Command::new(programs.path("poison-node")?);
        node.args(["--transport", &urls.transport, "--store", &urls.store, "--every", every]);
        match name.starts_with("rate") {
            true => node.args(["--measure", "rate", "--messages", &self.messages.to_string()]),
            false => node.args(["--measure", "delay", "--messages", &self.trickle.to_string()]),
        };
        let mut node = Proc::spawn("node", node.env("RUST_BACKTRACE", "0"), &dir)?;
        node.expect_success(LIMIT).with_context(|| name.to_owned())?;
        let said = lines(&node).pop().context("what was measured")?;
        let poison = said["poison"].as_u64().context("how much poison there was")?;
        let dead = store_of(&dir)?.number("select count(*) from dead_letter")?.unsigned_abs();
        let mut remove = Command::new(programs.path("chaos-node")?);
        remove.args(["--remove", "--transport", &urls.transport, "--store", &urls.store]);
        Proc::spawn("remove", &mut remove, &dir)?.expect_success(LIMIT)?;
        artifacts.done(&dir, dead != poison)?;
        Ok(Seen { said, poison, dead })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
