//! `cargo xtask plans`: no hot statement of the PostgreSQL store reads a whole table or a whole index.

use anyhow::Result;
use clap::Args;

use crate::backends::Server as _;
use crate::backends::postgres::Postgres;
use crate::backends::provide::provide;
use crate::command::Check;
use crate::verdict::{Outcome, Timer, Verdict};
use crate::{cargo, libtest};

/// The states of the statistics under which the statements run, one test each.
const STATES: [&str; 3] = ["without_statistics", "with_statistics_of_empty_tables", "with_fresh_statistics"];

/// Runs the store's own statements, and counts by the server's counters how much of tables and indexes they read (counts:
/// states, without_scans, failed)
#[derive(Debug, Args)]
pub struct Plans {
    /// Install PostgreSQL if it is missing
    #[arg(long)]
    install: bool,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
}

impl Check for Plans {
    const NAME: &'static str = "plans";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let server = provide(&Postgres, self.install)?;
        println!("{} ({})", server.identity, server.how.word());
        let mut command = cargo::command();
        command.args(["test", "--workspace", "--test", "postgres_plans"]);
        command.env(Postgres.variable(), &server.address);
        let (status, summary) = libtest::run(&mut command)?;
        let good = |state: &&str| summary.tests.iter().any(|(name, passed)| name == state && *passed);
        let without_scans = STATES.iter().filter(|state| good(state)).count();
        timer.count("states", STATES.len()).count("without_scans", without_scans).count("failed", summary.failed);
        Ok(timer.finish(if !status.success() {
            Outcome::Fail
        } else if without_scans < STATES.len() {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}
