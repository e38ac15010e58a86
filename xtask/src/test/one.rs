//! `cargo xtask test SUITE [FILTER]` and `cargo xtask test --quick`: a part of the tests, while one works on something.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Test, suite_command};
use crate::backends::provide::provide;
use crate::backends::{self, Server, Suite};
use crate::cargo;
use crate::libtest::{self, Summary};
use crate::verdict::{Outcome, Timer, Verdict};

/// The unit tests, and the conformance suites that need no server.
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
    "--test",
    "sql_conformance",
];

impl Test {
    /// Runs the quick tests.
    pub(super) fn run_quick(&self, timer: Timer, seed: u64) -> Result<Verdict> {
        let mut command = cargo::command();
        judge(command.args(QUICK).env("SAGABUS_SEED", seed.to_string()), timer, 0)
    }

    /// Runs a suite, of this name or of this test target, with its server if it has one.
    pub(super) fn run_one(&self, name: &str, timer: Timer, seed: u64) -> Result<Verdict> {
        let Some((server, suite)) = find(name) else {
            let mut command = cargo::command();
            command.args(["test", "--workspace", "--no-fail-fast", "--test", name]).args(&self.filter);
            return judge(command.env("SAGABUS_SEED", seed.to_string()), timer, 0);
        };
        let provided = provide(server, self.install)?;
        println!("{} ({})", provided.identity, provided.how.word());
        let extras = server.extras()?;
        if let Some(missing) = self.unmet(suite, &extras)? {
            bail!("{name} cannot run: {missing}");
        }
        let mut command = suite_command(suite, server, &provided.address, &extras, seed);
        let verdict = judge(command.args(&self.filter), timer, 1)?;
        provided.stop()?;
        Ok(verdict)
    }
}

/// The suite with a server whose test target is called so.
fn find(name: &str) -> Option<(&'static dyn Server, &'static Suite)> {
    backends::ALL.iter().find_map(|backend| {
        let suite = backend.suites.iter().find(|suite| suite.test == name)?;
        Some((backend.server?, suite))
    })
}

fn judge(command: &mut Command, mut timer: Timer, backends: usize) -> Result<Verdict> {
    let (status, summary) = libtest::run(command)?;
    let Summary { programs, passed, failed, ignored, .. } = summary;
    timer.count("passed", passed).count("failed", failed).count("ignored", ignored);
    timer.count("programs", programs).count("backends", backends).count("missing", 0);
    Ok(timer.finish(match (status.success(), passed) {
        (true, 0) => Outcome::Vacuous,
        (true, _) => Outcome::Pass,
        (false, _) => Outcome::Fail,
    }))
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_suite_is_found_with_its_server() {
        let (server, suite) = find("rabbitmq_hazards").unwrap();
        assert_eq!((server.name(), suite.test), ("rabbitmq", "rabbitmq_hazards"));
        assert!(find("acceptance").is_none(), "it needs no server");
    }
}
