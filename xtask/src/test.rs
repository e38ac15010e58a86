//! `cargo xtask test`: every suite, with the servers they need, and a table of what ran and what was missing. Or a part.

mod one;

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use sagabus_testkit::rng::fresh_seed;

use crate::backends::provide::provide;
use crate::backends::{self, Backend, Need, Server, Suite, apt};
use crate::cargo;
use crate::command::Check;
use crate::libtest::{self, Summary};
use crate::proc;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// What runs without any server: all packages, examples built, doc tests included. A failure does not stop the rest, so
/// that one run shows all of them.
const EMBEDDED: &[&str] = &["test", "--workspace", "--no-fail-fast"];

/// Runs the embedded suites, then those of each backend; or one suite, or the quick tests (counts: passed, failed, ignored,
/// programs, backends, missing)
#[derive(Debug, Args)]
pub struct Test {
    /// Only this test target, or the suites of this backend, with its server if it needs one: `acceptance`, `postgres`,
    /// `rabbitmq_hazards`
    #[arg(conflicts_with_all = ["quick", "require"])]
    suite: Option<String>,
    /// Only the tests of the suite whose names contain this
    #[arg(requires = "suite")]
    filter: Option<String>,
    /// Only the unit tests, and the conformance suites of the memory and sqlite backends
    #[arg(long, conflicts_with = "require")]
    quick: bool,
    /// Fail if one of these backends could not be tested, separated by commas; `all` is every backend with a suite here
    #[arg(long, value_delimiter = ',')]
    require: Vec<String>,
    /// Install missing servers: debian packages, Kafka's jars
    #[arg(long)]
    install: bool,
    /// Seed for the suites that draw (SAGABUS_SEED)
    #[arg(long)]
    seed: Option<u64>,
}

/// A line of the table at the end.
struct Row {
    backend: &'static str,
    provided: String,
    suites: String,
    result: Ran,
    seconds: f64,
}

enum Ran {
    Passed(u64),
    Failed(String),
    /// The server could not be had.
    Missing(String),
    NoSuite,
}

impl Check for Test {
    const NAME: &'static str = "test";

    fn run(self) -> Result<Verdict> {
        self.check_names()?;
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        if self.quick {
            return self.run_quick(timer, seed);
        }
        if let Some(suite) = &self.suite {
            return self.run_one(suite, timer, seed);
        }
        let started = Instant::now();
        let (status, mut summary) =
            libtest::run(cargo::command().args(EMBEDDED).env("SAGABUS_SEED", seed.to_string()))?;
        let embedded_seconds = seconds_since(started);
        let embedded_ok = status.success();
        let mut rows = Vec::new();
        for backend in backends::ALL {
            rows.push(match backend.server {
                None => embedded(backend, &summary, embedded_seconds),
                Some(server) => self.with_server(backend, server, seed, &mut summary)?,
            });
        }
        let missing = self.missing(&rows);
        let failed_suite = rows.iter().any(|row| matches!(row.result, Ran::Failed(_)));
        report(&rows, &missing, embedded_ok, embedded_seconds, &summary);
        let tested = rows.iter().filter(|row| matches!(row.result, Ran::Passed(_))).count();
        timer.count("passed", summary.passed).count("failed", summary.failed).count("ignored", summary.ignored);
        timer.count("programs", summary.programs).count("backends", tested).count("missing", missing.len());
        Ok(timer.finish(if !embedded_ok || failed_suite || !missing.is_empty() {
            Outcome::Fail
        } else if summary.passed == 0 {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Test {
    fn check_names(&self) -> Result<()> {
        let known: Vec<_> = backends::ALL.iter().map(|backend| backend.name).collect();
        match self.require.iter().find(|name| *name != "all" && !known.contains(&name.as_str())) {
            Some(unknown) => bail!("there is no backend {unknown}; there are {} (or all)", known.join(", ")),
            None => Ok(()),
        }
    }

    fn with_server(&self, backend: &Backend, server: &dyn Server, seed: u64, summary: &mut Summary) -> Result<Row> {
        let started = Instant::now();
        let mut row = Row {
            backend: backend.name,
            provided: String::new(),
            suites: String::new(),
            result: Ran::NoSuite,
            seconds: 0.0,
        };
        if backend.suites.is_empty() {
            return Ok(row);
        }
        let provided = match provide(server, self.install) {
            Ok(provided) => provided,
            Err(error) => {
                row.result = Ran::Missing(format!("{error:#}"));
                row.seconds = seconds_since(started);
                return Ok(row);
            }
        };
        row.provided = format!("{} ({})", provided.how.word(), provided.identity);
        let mut passed = 0;
        let mut names = Vec::new();
        row.result = Ran::Passed(0);
        let extras = server.extras()?;
        for suite in backend.suites {
            if let Some(missing) = self.unmet(suite, &extras)? {
                names.push(format!("{} (not run: {missing})", suite.name));
                if self.require.iter().any(|name| name == "all" || name == backend.name) {
                    row.result = Ran::Failed(format!("{}: {missing}", suite.name));
                }
                continue;
            }
            names.push(suite.name.to_owned());
            println!("\n{}: {} against {}", backend.name, suite.name, provided.identity);
            let mut command = suite_command(suite, server, &provided.address, &extras, seed);
            let (status, ran) = libtest::run(&mut command)?;
            passed += ran.passed;
            if !status.success() {
                row.result = Ran::Failed(format!("{}: {} failed, {status}", suite.name, ran.failed));
            } else if ran.passed == 0 {
                // A filter that no longer matches must not look like success.
                row.result = Ran::Failed(format!("{} ran no test", suite.name));
            }
            summary.add(ran);
        }
        if matches!(row.result, Ran::Passed(_)) {
            row.result = Ran::Passed(passed);
        }
        row.suites = names.join(", ");
        provided.stop()?;
        row.seconds = seconds_since(started);
        Ok(row)
    }

    /// What a suite lacks, after an attempt to install it if that is wished.
    fn unmet(&self, suite: &Suite, extras: &[(&str, String)]) -> Result<Option<String>> {
        for need in suite.needs {
            match need {
                Need::Variable(name) => {
                    if env::var_os(name).is_none() && extras.iter().all(|(known, _)| known != name) {
                        return Ok(Some(format!("{name} is not set")));
                    }
                }
                Need::Program(name, package) => {
                    // servers' programs are not on everybody's path
                    let here = || proc::which(name).is_some() || Path::new("/usr/sbin").join(name).is_file();
                    if !here() && self.install {
                        apt::install(&[*package])?;
                    }
                    if !here() {
                        return Ok(Some(format!("no {name} found (--install would fetch it)")));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The backends that were required and could not be tested.
    fn missing(&self, rows: &[Row]) -> Vec<&'static str> {
        let required = |row: &&Row| match row.result {
            Ran::Missing(_) => self.require.iter().any(|name| name == "all" || name == row.backend),
            // Named one by one, even a backend whose suites are not written yet is missed.
            Ran::NoSuite => self.require.iter().any(|name| name == row.backend),
            Ran::Passed(_) | Ran::Failed(_) => false,
        };
        rows.iter().filter(required).map(|row| row.backend).collect()
    }
}

/// The command that runs a suite against the server at this address.
fn suite_command(
    suite: &Suite,
    server: &dyn Server,
    address: &str,
    extras: &[(&'static str, String)],
    seed: u64,
) -> Command {
    let mut command = cargo::command();
    command.args(suite.arguments()).envs(extras.iter().map(|(name, value)| (name, value)));
    command.env("SAGABUS_SEED", seed.to_string()).env(server.variable(), address);
    command
}

/// The embedded suites ran in one go; their tests are told apart by the backend's name in their path.
fn embedded(backend: &Backend, summary: &Summary, seconds: f64) -> Row {
    let result = match summary.with_word(backend.name) {
        (0, 0) => Ran::NoSuite,
        (passed, 0) => Ran::Passed(passed),
        (_, failed) => Ran::Failed(format!("{failed} failed")),
    };
    let suites = if matches!(result, Ran::NoSuite) { "" } else { "in cargo test --workspace" };
    Row { backend: backend.name, provided: "embedded".to_owned(), suites: suites.to_owned(), result, seconds }
}

fn report(rows: &[Row], missing: &[&str], embedded_ok: bool, embedded_seconds: f64, summary: &Summary) {
    let mut table = Table::new(["backend", "provided by", "suites", "seconds", "result"]);
    for row in rows {
        let (result, seconds) = match &row.result {
            Ran::Passed(passed) => (format!("ok, {passed} passed"), row.seconds.to_string()),
            Ran::Failed(why) => (format!("FAILED: {why}"), row.seconds.to_string()),
            Ran::Missing(why) => (format!("missing: {why}"), row.seconds.to_string()),
            Ran::NoSuite => ("no suite yet".to_owned(), String::new()),
        };
        table.row([row.backend, &row.provided, &row.suites, &seconds, &result]);
    }
    let embedded = if embedded_ok { "ok" } else { "FAILED" };
    println!(
        "\ncargo test --workspace: {embedded}, {embedded_seconds} s (its time is shown for each embedded backend)"
    );
    println!("in all {} passed, {} failed, {} ignored\n", summary.passed, summary.failed, summary.ignored);
    println!("{table}");
    if !missing.is_empty() {
        println!("required, but not tested: {}\n", missing.join(", "));
    }
}
