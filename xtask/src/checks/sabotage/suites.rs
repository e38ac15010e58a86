//! Building the suites once, with the bugs compiled in, and running them with one of them switched on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::plan::Suite;
use crate::checks::fixture::programs::{self, HIDDEN};
use crate::{cargo, paths};

/// A planted bug may hang a suite as well as fail it. Both are found.
const LIMIT: Duration = Duration::from_secs(240);

/// The test programs: (package, test) to (program, its directory).
pub struct Suites(BTreeMap<(String, String), (PathBuf, PathBuf)>);

/// How a suite ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Whether it was content.
    pub green: bool,
    /// The first case that was not, or how many were.
    pub case: String,
    /// How long it took.
    pub seconds: f64,
}

impl Suites {
    /// Builds all of the plan's.
    pub fn build(needed: &[Suite]) -> Result<Self> {
        let mut command = cargo::command();
        command.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]);
        command.args(["--package", "sagabus", "--features", HIDDEN]);
        let mut packages: Vec<&str> = needed.iter().filter_map(package).collect();
        packages.sort_unstable();
        packages.dedup();
        for package in packages {
            command.args(["--package", package]);
        }
        let mut tests: Vec<&str> = needed
            .iter()
            .filter_map(|suite| match suite {
                Suite::Test(_, test, _) => Some(*test),
                Suite::Crash(..) => None,
            })
            .collect();
        tests.sort_unstable();
        tests.dedup();
        if tests.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        for test in tests {
            match test {
                "lib" => command.arg("--lib"),
                test => command.args(["--test", test]),
            };
        }
        command.arg("--target-dir").arg(programs::chaos_target());
        let mut found = BTreeMap::new();
        for message in programs::run(command)? {
            if let Some((key, value)) = program(&message) {
                found.insert(key, value);
            }
        }
        Ok(Self(found))
    }

    /// Runs one with a bug, or with none.
    pub fn run(&self, suite: Suite, bug: Option<&str>, seed: u64) -> Result<Ran> {
        let started = Instant::now();
        let mut command = match suite {
            Suite::Test(package, test, cases) => {
                let found = self.0.get(&(package.to_owned(), test.to_owned()));
                let (program, dir) = found.with_context(|| format!("there is no test program {test} in {package}"))?;
                let mut command = Command::new(program);
                command.current_dir(dir);
                if !cases.is_empty() {
                    command.arg(cases);
                }
                command
            }
            Suite::Crash(layout, point, nth) => {
                let mut command = Command::new(std::env::current_exe().context("find this program")?);
                command.args([
                    "crash",
                    "--layout",
                    layout,
                    "--point",
                    point,
                    "--action",
                    "kill",
                    "--program",
                    "scenario",
                ]);
                command.args(["--nth", &nth.to_string(), "--seed", &seed.to_string()]);
                command
            }
        };
        command.env("RUST_BACKTRACE", "0").env_remove("SAGABUS_SABOTAGE");
        if let Some(bug) = bug {
            command.env("SAGABUS_SABOTAGE", bug);
        }
        let (green, text) = finish(command)?;
        let case = case(suite, &text, green);
        Ok(Ran { green, case, seconds: crate::verdict::seconds_since(started) })
    }
}

fn package(suite: &Suite) -> Option<&'static str> {
    match suite {
        Suite::Test(package, ..) => Some(package),
        Suite::Crash(..) => None,
    }
}

type Program = ((String, String), (PathBuf, PathBuf));

fn program(message: &Value) -> Option<Program> {
    let test = match message["target"]["kind"][0].as_str()? {
        "test" => message["target"]["name"].as_str()?.to_owned(),
        "lib" if message["profile"]["test"] == true => "lib".to_owned(),
        _ => return None,
    };
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let dir = manifest.parent()?.to_path_buf();
    let package = match dir.strip_prefix(paths::root()).ok()?.to_str()? {
        "" => "sagabus".to_owned(),
        folder => format!("sagabus-{folder}"),
    };
    Some(((package, test), (PathBuf::from(message["executable"].as_str()?), dir)))
}

/// Its success and its output, or no success after the limit.
fn finish(mut command: Command) -> Result<(bool, String)> {
    let dir = std::env::temp_dir().join(format!("sagabus-sabotage-{}", std::process::id()));
    let log = dir.join("suite.out");
    // of the suite before
    let _ = std::fs::remove_file(&log);
    // a suite that hangs or dies leaves its files: not where another one looks, and gone with this
    let own = dir.join("tmp");
    std::fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
    command.env("TMPDIR", &own);
    let mut child = crate::proc::Proc::spawn("suite", command.stdin(Stdio::null()), &dir)?;
    let status = child.wait_for(LIMIT)?;
    if status.is_none() {
        child.kill9()?;
    }
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    drop(child);
    std::fs::remove_dir_all(&dir).context("remove the suite's output")?;
    Ok((status.is_some_and(|status| status.success()), text))
}

fn case(suite: Suite, text: &str, green: bool) -> String {
    if let Suite::Crash(..) = suite {
        let failed = text.lines().find(|line| line.contains("FAILED"));
        return failed.map_or_else(
            || if green { "pass".into() } else { "no verdict".into() },
            |line| line.chars().take(120).collect(),
        );
    }
    let failed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
    match failed[..] {
        [] if green => text.lines().find(|line| line.starts_with("test result")).unwrap_or("ran nothing").to_owned(),
        [] => "hangs, or ended by itself".to_owned(),
        [only] => only.to_owned(),
        [first, ..] => format!("{first} and {} more", failed.len() - 1),
    }
}

/// Fails unless a run without any bug did something and was content.
pub fn expect_green(suite: Suite, ran: &Ran) -> Result<()> {
    if !ran.green {
        bail!("{suite:?} is red without any bug: {}", ran.case);
    }
    if ran.case.contains(" 0 passed") || ran.case == "ran nothing" {
        bail!("{suite:?} runs nothing");
    }
    Ok(())
}
