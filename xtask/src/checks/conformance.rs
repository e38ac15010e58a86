//! `cargo xtask conformance`: the suites of the ports, counted; on each embedded backend, or on one that has a server.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::backends::provide::provide;
use crate::backends::{self, Server};
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
    ("postgres", "store", "sagabus-outbox", "postgres_conformance"),
    ("postgres", "transport", "sagabus-outbox", "postgres_transport"),
    ("rabbitmq", "transport", "sagabus-transports", "rabbitmq_conformance"),
    ("kafka", "transport", "sagabus-transports", "kafka_conformance"),
];

/// The server of a backend that has one. Its name is that of the feature, too.
fn server(backend: &str) -> Option<&'static dyn Server> {
    backends::ALL.iter().find(|known| known.name == backend)?.server
}

/// Runs the conformance suites (counts: cases_total, run, refused, skipped, failed). A case about something that a
/// backend lacks checks that it is refused; `refused` counts those, by their names.
#[derive(Debug, Args)]
pub struct Conformance {
    /// memory, sqlite, postgres, rabbitmq or kafka, or two of them as the other checks name them (kafka+postgres); all:
    /// those that need no server
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
        let seed = self.seed.unwrap_or_else(sagabus_testkit::rng::fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        let named: Vec<&str> = match self.backend.as_str() {
            "all" => backends::ALL.iter().map(|known| known.name).filter(|name| server(name).is_none()).collect(),
            names => names.split('+').collect(),
        };
        if let Some(unknown) = named.iter().find(|name| !SUITES.iter().any(|suite| suite.0 == **name)) {
            bail!("there is no backend {unknown}; there are memory, sqlite, postgres, rabbitmq, kafka and all");
        }
        let mut servers = Vec::new();
        for server in named.iter().filter_map(|name| server(name)) {
            servers.push((server, provide(server, false).context("bring up the server")?));
        }
        let chosen = SUITES.iter().filter(|suite| named.contains(&suite.0));
        let mut table = Table::new(["backend", "port", "cases", "passed", "failed", "skipped", "seconds"]);
        let mut all = Summary::default();
        let mut broken = false;
        for (backend, port, _, test) in chosen {
            let started = std::time::Instant::now();
            let mut command = cargo::command();
            // the whole workspace, as in `cargo xtask test`: so nothing is built in a second way
            command.args(["test", "--workspace", "--test", test, "--no-fail-fast"]);
            if *backend == "kafka" {
                command.args(["--features", backends::KAFKA_ON]);
            }
            if let Some((server, provided)) = servers.iter().find(|(server, _)| server.name() == *backend) {
                command.env(server.variable(), &provided.address);
            }
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
        for (_, provided) in servers {
            println!("on {} ({})", provided.identity, provided.how.word());
            provided.stop()?;
        }
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
