//! `cargo xtask test SUITE [FILTER]` and `cargo xtask test --quick`: a part of the tests, while one works on something.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Test, suite_command};
use crate::backends::provide::provide;
use crate::backends::{self, Server, Suite};
use crate::cargo;
use crate::checks::conformance::SUITES;
use crate::libtest::{self, Summary};
use crate::verdict::{Outcome, Timer, Verdict};

/// The unit tests, and the conformance suites that need neither a server nor real time: that of the transport over SQLite
/// takes a minute.
const QUICK: &[&str] = &[
    "test",
    "--workspace",
    "--no-fail-fast",
    "--lib",
    "--test",
    "memory",
    "--test",
    "sqlite_conformance",
    "--test",
    "memory_conformance",
];

impl Test {
    /// Runs the quick tests.
    pub(super) fn run_quick(&self, timer: Timer, seed: u64) -> Result<Verdict> {
        let mut command = cargo::command();
        judge(command.args(QUICK).env("SAGABUS_SEED", seed.to_string()), timer, 0)
    }

    /// Runs a test target, with its server if it needs one, or all suites of a backend.
    pub(super) fn run_one(&self, name: &str, mut timer: Timer, seed: u64) -> Result<Verdict> {
        let Some((server, suites)) = find(name) else {
            let mut command = cargo::command();
            command.args(["test", "--workspace", "--no-fail-fast"]);
            command.args(embedded(name).iter().flat_map(|test| ["--test", *test])).args(&self.filter);
            return judge(command.env("SAGABUS_SEED", seed.to_string()), timer, 0);
        };
        let provided = provide(server, self.install)?;
        println!("{} ({})", provided.identity, provided.how.word());
        let extras = server.extras()?;
        let (mut all, mut good) = (Summary::default(), true);
        for suite in &suites {
            if let Some(missing) = self.unmet(suite, &extras)? {
                bail!("{} cannot run: {missing}", suite.test);
            }
            let mut command = suite_command(suite, server, &provided.address, &extras, seed);
            let (status, summary) = libtest::run(command.args(&self.filter))?;
            good &= status.success();
            all.add(summary);
        }
        provided.stop()?;
        count(&mut timer, &all, 1);
        Ok(timer.finish(outcome(good, &all)))
    }
}

/// The suites with a server that are meant: the one with this test target, or all of a backend.
fn find(name: &str) -> Option<(&'static dyn Server, Vec<&'static Suite>)> {
    backends::ALL.iter().find_map(|backend| {
        let meant = |suite: &&Suite| backend.name == name || suite.test == name;
        let suites: Vec<_> = backend.suites.iter().filter(meant).collect();
        if suites.is_empty() { None } else { Some((backend.server?, suites)) }
    })
}

/// The test targets that are meant, none of which needs a server.
fn embedded(name: &str) -> Vec<&str> {
    let targets = SUITES.iter().filter(|(backend, ..)| *backend == name).map(|(.., test)| *test);
    let targets: Vec<&str> = targets.collect();
    if targets.is_empty() { vec![name] } else { targets }
}

fn judge(command: &mut Command, mut timer: Timer, backends: usize) -> Result<Verdict> {
    let (status, summary) = libtest::run(command)?;
    count(&mut timer, &summary, backends);
    Ok(timer.finish(outcome(status.success(), &summary)))
}

fn count(timer: &mut Timer, summary: &Summary, backends: usize) {
    timer.count("passed", summary.passed).count("failed", summary.failed).count("ignored", summary.ignored);
    timer.count("programs", summary.programs).count("backends", backends).count("missing", 0);
}

fn outcome(good: bool, summary: &Summary) -> Outcome {
    match (good, summary.passed) {
        (true, 0) => Outcome::Vacuous,
        (true, _) => Outcome::Pass,
        (false, _) => Outcome::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::{embedded, find};

    #[test]
    fn a_suite_is_found_with_its_server() {
        let (server, suites) = find("rabbitmq_hazards").unwrap();
        let targets: Vec<_> = suites.iter().map(|suite| suite.test).collect();
        assert_eq!((server.name(), targets), ("rabbitmq", vec!["rabbitmq_hazards"]));
        assert!(find("acceptance").is_none(), "it needs no server");
        assert_eq!(embedded("acceptance"), ["acceptance"]);
    }

    #[test]
    fn a_backend_means_all_of_its_suites() {
        assert!(find("postgres").unwrap().1.len() > 3);
        assert_eq!(embedded("sqlite"), ["sqlite_conformance", "sql_conformance"]);
    }
}
