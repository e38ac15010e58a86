//! `cargo xtask isolation`: a key that sleeps and a key that fails are nobody else's business.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::fixture::artifacts::Artifacts;
use super::fixture::environment::lines;
use super::fixture::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict};

/// Measures all other keys beside a handler that sleeps 10 s and a key in retry, and without them (counts: messages,
/// failures, p50_ms, p99_ms, effect_p99_ms, baseline_p50_ms, baseline_p99_ms, baseline_effect_p99_ms, limit_ms, tries). `p99_ms`
/// is until the handler starts, `effect_p99_ms` until a message it sent is handled.
#[derive(Debug, Args)]
pub struct Isolation {
    /// Messages a second
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Length of each half, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What p99 must stay under, in milliseconds
    #[arg(long, default_value_t = 50.0)]
    limit_ms: f64,
    /// How often it is tried on a busy machine
    #[arg(long, default_value_t = 3)]
    tries: u32,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the database in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Isolation {
    const NAME: &'static str = "isolation";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let programs = Programs::build(Build::Release)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        // a machine that is busy with something else is not what this is about: the best of a few tries counts, beside
        // what the same try had without the sleeper
        let mut best: Option<Value> = None;
        let mut tries = 0;
        while tries < self.tries && !best.as_ref().is_some_and(|said| p99(said) < self.limit_ms) {
            tries += 1;
            let said = self.once(&programs, &artifacts.run(&format!("isolation{tries}")))?;
            println!("{said}");
            if best.as_ref().is_none_or(|best| p99(&said) < p99(best)) {
                best = Some(said);
            }
        }
        let said = best.context("not tried at all")?;
        let (quiet, loud) = (&said["baseline"], &said["disturbed"]);
        let number = |value: &Value| value.as_f64().unwrap_or(f64::MAX);
        let start = number(&loud["start"]["p99_ms"]);
        let effect = number(&loud["done"]["p99_ms"]);
        let messages = loud["start"]["messages"].as_u64().unwrap_or(0);
        timer.count("messages", messages).count("failures", said["failures"].clone());
        timer.count("p50_ms", loud["start"]["p50_ms"].clone()).count("p99_ms", start).count("effect_p99_ms", effect);
        timer.count("baseline_p50_ms", quiet["start"]["p50_ms"].clone());
        timer.count("baseline_p99_ms", quiet["start"]["p99_ms"].clone());
        timer
            .count("baseline_effect_p99_ms", quiet["done"]["p99_ms"].clone())
            .count("limit_ms", self.limit_ms)
            .count("tries", tries);
        let disturbed = said["asleep"] == true && said["failures"].as_u64().unwrap_or(0) > 3;
        let baseline = number(&quiet["done"]["p99_ms"]);
        Ok(timer.finish(if !disturbed || messages < self.rate * self.seconds / 2 {
            Outcome::Vacuous
        } else if p99(&said) < self.limit_ms {
            Outcome::Pass
        } else if baseline >= self.limit_ms {
            println!("the machine is too busy to tell: {baseline} ms without the sleeper");
            Outcome::Vacuous
        } else {
            Outcome::Fail
        }))
    }
}

impl Isolation {
    fn once(&self, programs: &Programs, dir: &Path) -> Result<Value> {
        let mut command = Command::new(programs.path("isolation")?);
        command.arg("--store").arg(format!("sqlite://{}", dir.join("shop.db").display()));
        command.args(["--rate", &self.rate.to_string(), "--seconds", &self.seconds.to_string()]);
        command.args(["--sleep", &self.seconds.max(10).to_string()]);
        let mut program = Proc::spawn("isolation", &mut command, dir)?;
        program.expect_success(Duration::from_secs(60 + 3 * self.seconds))?;
        let said = lines(&program).pop().context("it said nothing")?;
        if self.keep.is_none() {
            std::fs::remove_dir_all(dir).context("remove the database")?;
        }
        Ok(said)
    }
}

/// The later of the two moments is what counts.
fn p99(said: &Value) -> f64 {
    said["disturbed"]["done"]["p99_ms"].as_f64().unwrap_or(f64::MAX)
}
