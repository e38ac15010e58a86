//! `cargo xtask checks`: the checks of a CI run, or the full set, in one command.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::command::Check;
use crate::proc::tail;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict};
use crate::{paths, proc};

/// Everything that the project claims about itself on SQLite, PostgreSQL, RabbitMQ and Kafka.
const FULL: &[&str] = &[
    "conformance --backend all",
    "crash --backend sqlite --layout both --point all --action kill,stop --messages 20",
    "kills --backend sqlite --n 200 --processes 2",
    "crash --backend postgres --layout both --point all --action kill,stop --processes 3",
    "kills --backend postgres --n 100 --processes 3",
    "nemesis --backend postgres --processes 3",
    "diff --ops 100000",
    "bank --processes 8 --transfers 10000",
    "plans",
    "sabotage",
    "race --processes 50",
    "race --processes 20 --backend postgres",
    "isolation",
    "fair --processes 4",
    "hostile",
    "timers --pending 100000",
    "conformance --backend rabbitmq",
    "orders --backend rabbitmq+sqlite",
    "orders --backend rabbitmq+postgres",
    "crash --backend rabbitmq+postgres --point all --action kill,stop --processes 2",
    "kills --backend rabbitmq+postgres --n 100 --processes 3",
    "nemesis --backend rabbitmq+postgres --processes 2",
    "race --processes 20 --backend rabbitmq+postgres",
    "conformance --backend kafka",
    "orders --backend kafka+sqlite",
    "orders --backend kafka+postgres",
    "crash --backend kafka+postgres --point all --action kill,stop --processes 2",
    "kills --backend kafka+postgres --n 100 --processes 3",
    "nemesis --backend kafka+postgres --processes 3",
    "race --processes 20 --backend kafka+postgres",
    "poison --backend kafka+postgres",
];

/// Runs every check and shows their last lines (counts: checks, passed, failed, vacuous)
#[derive(Debug, Args)]
pub struct Checks {
    /// The full set, as the project's claims state it; without it, what `.ci/run` runs
    #[arg(long)]
    full: bool,
    /// For all of them
    #[arg(long)]
    seed: Option<u64>,
}

impl Check for Checks {
    const NAME: &'static str = "checks";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME);
        let selection = if self.full { FULL.iter().map(ToString::to_string).collect() } else { selection()? };
        let mut table = Table::new(["check", "verdict", "seconds", "counts"]);
        let (mut passed, mut failed, mut vacuous) = (0, 0, 0);
        for check in &selection {
            println!("\n$ cargo xtask {check}");
            let verdict = self.one(check)?;
            match verdict["verdict"].as_str() {
                Some("pass") => passed += 1,
                Some("vacuous") => vacuous += 1,
                _ => failed += 1,
            }
            println!("{verdict}");
            let word = verdict["verdict"].as_str().unwrap_or("fail").to_owned();
            table.row([check.clone(), word, verdict["seconds"].to_string(), verdict["counts"].to_string()]);
        }
        println!("\n{table}");
        timer.count("checks", selection.len()).count("passed", passed);
        timer.count("failed", failed).count("vacuous", vacuous);
        Ok(timer.finish(match (failed, vacuous) {
            (0, 0) => Outcome::Pass,
            (0, _) => Outcome::Vacuous,
            _ => Outcome::Fail,
        }))
    }
}

impl Checks {
    fn one(&self, check: &str) -> Result<Value> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(check.split_whitespace()).stdin(Stdio::null());
        if let Some(seed) = self.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        let dir = std::env::temp_dir().join(format!("sagabus-checks-{}", std::process::id()));
        let mut child = proc::Proc::spawn(check.split(' ').next().unwrap_or(check), &mut command, &dir)?;
        child.wait()?;
        let last = tail(child.stdout(), 1);
        let verdict = serde_json::from_str(&last).unwrap_or(Value::Null);
        if verdict["verdict"] != "pass" {
            println!("{}\n{}", tail(child.stdout(), 60), tail(child.stderr(), 20));
        }
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        Ok(verdict)
    }
}

/// The list in `.ci/run`, which is the one place where it stands.
fn selection() -> Result<Vec<String>> {
    let file = paths::root().join(".ci/run");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let list = text.split("CHECKS=(").nth(1).and_then(|rest| rest.split("\n)").next()).unwrap_or_default();
    Ok(list.lines().filter_map(|line| Some(line.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::{FULL, selection};

    #[test]
    fn every_line_names_a_check_and_parses() {
        for line in selection().unwrap().iter().map(String::as_str).chain(FULL.iter().copied()) {
            let name = line.split(' ').next().unwrap();
            let entry = crate::checks::ALL.iter().find(|entry| entry.name() == name);
            let entry = entry.unwrap_or_else(|| panic!("{line} names no check"));
            entry.command().try_get_matches_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
