//! `cargo xtask conformance`: the suites of the ports, on each embedded backend, counted.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::cargo;
use crate::command::Check;
use crate::libtest::{self, Summary};
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// (backend, port, package, test program).
pub const SUITES: &[(&str, &str, &str, &str)] = &[
    ("memory", "store", "sagabus-outbox", "memory"),
    ("memory", "transport", "sagabus-transports", "memory_conformance"),
    ("sqlite", "store", "sagabus-outbox", "sqlite_conformance"),
    ("sqlite", "transport", "sagabus-transports", "sql_conformance"),
];

/// Runs the conformance suites (counts: cases_total, run, refused, skipped, failed). A case about something that a
/// backend lacks checks that it is refused; `refused` counts those, by their names.
#[derive(Debug, Args)]
pub struct Conformance {
    /// memory, sqlite or all
    #[arg(long, default_value = "all")]
    backend: String,
    /// For suites that draw (SAGABUS_SEED)
    #[arg(long)]
    seed: Option<u64>,
    /// Accepted like everywhere: the suites leave nothing
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Conformance {
    const NAME: &'static str = "conformance";

    fn run(self) -> Result<Verdict> {
        let seed = self.seed.unwrap_or_else(crate::rng::fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        let chosen: Vec<_> = SUITES.iter().filter(|suite| self.backend == "all" || suite.0 == self.backend).collect();
        if chosen.is_empty() {
            bail!("there is no backend {}; there are memory, sqlite and all", self.backend);
        }
        let mut table = Table::new(["backend", "port", "cases", "passed", "failed", "skipped", "seconds"]);
        let mut all = Summary::default();
        let mut broken = false;
        for (backend, port, package, test) in chosen {
            let started = std::time::Instant::now();
            let mut command = cargo::command();
            command.args(["test", "--package", package, "--test", test, "--no-fail-fast"]);
            let (status, summary) = libtest::run(command.env("SAGABUS_SEED", seed.to_string()))?;
            // a program that did not even report has not passed
            broken |= !status.success() || summary.passed == 0;
            let cases = summary.passed + summary.failed + summary.ignored;
            let cells = [cases, summary.passed, summary.failed, summary.ignored].map(|count| count.to_string());
            table.row(
                [*backend, port]
                    .into_iter()
                    .map(str::to_owned)
                    .chain(cells)
                    .chain([seconds_since(started).to_string()]),
            );
            all.add(summary);
        }
        println!("\n{table}");
        let refused = all.tests.iter().filter(|(name, _)| name.contains("refuse")).count();
        timer.count("cases_total", all.passed + all.failed + all.ignored).count("run", all.passed + all.failed);
        timer.count("refused", refused).count("skipped", all.ignored).count("failed", all.failed);
        Ok(timer.finish(if broken || all.failed > 0 {
            Outcome::Fail
        } else if all.ignored > 0 {
            // a case that is left out proves nothing
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}
