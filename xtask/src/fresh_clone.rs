//! `cargo xtask fresh-clone`: does what a newcomer does, on nothing but the last commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::backends::state;
use crate::command::Check;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};
use crate::{cargo, paths, proc};

/// The two commands a newcomer is told.
const COMMANDS: [&str; 2] = ["cargo run --example order", "cargo xtask test"];

/// Clones the last commit and runs the README's two commands with an empty cargo home (counts: commands_told,
/// commands_run, commands_ok, tests_passed, files_left, seconds_order, seconds_test)
#[derive(Debug, Args)]
pub struct FreshClone {
    /// Leave out `cargo xtask test`, where it has just run anyway
    #[arg(long)]
    skip_test: bool,
    /// Keep the clone and its cargo home in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for FreshClone {
    const NAME: &'static str = "fresh-clone";

    fn run(self) -> Result<Verdict> {
        let environment = match &self.keep {
            Some(dir) => std::path::absolute(dir).context("find the directory to keep")?,
            None => std::env::temp_dir().join(format!("sagabus-fresh-clone-{}", std::process::id())),
        };
        fs::create_dir_all(&environment).with_context(|| format!("create {}", environment.display()))?;
        let verdict = self.in_directory(&environment);
        if self.keep.is_none() {
            state::remove(&environment)?;
        }
        verdict
    }
}

impl FreshClone {
    fn in_directory(&self, environment: &Path) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME);
        let (clone, home) = (environment.join("clone"), environment.join("cargo-home"));
        fs::create_dir(&home).context("create an empty cargo home")?;
        proc::output(Command::new("git").args(["clone", "--quiet", "--no-local"]).arg(paths::root()).arg(&clone))?;
        let commit = proc::output(Command::new("git").current_dir(&clone).args(["rev-parse", "HEAD"]))?;
        println!("cloned {} into {}", commit.trim(), clone.display());
        warn_about_uncommitted()?;

        let readme = fs::read_to_string(clone.join("README.md")).context("read README.md in the clone")?;
        let told = commands_in(&readme);
        timer.count("commands_told", told.len());
        let (mut run, mut ok) = (0, 0);
        for command in &told {
            if self.skip_test && *command == COMMANDS[1] {
                println!("skipped: {command}");
                continue;
            }
            println!("\n$ {command}");
            let started = Instant::now();
            let output = execute(command, &clone, &home, environment)?;
            run += 1;
            let name = command.rsplit(' ').next().unwrap_or(command);
            timer.count(&format!("seconds_{name}"), seconds_since(started));
            if name == "test" {
                timer.count("tests_passed", tests_passed(&output.stdout).unwrap_or(0));
            }
            println!("{command}: {} after {} s", output.status, seconds_since(started));
            ok += u32::from(output.status.success());
        }
        let left = proc::output(Command::new("git").current_dir(&clone).args(["status", "--porcelain"]))?;
        timer.count("commands_run", run).count("commands_ok", ok).count("files_left", left.lines().count());
        print!("{left}");
        for missing in COMMANDS.iter().filter(|command| !told.contains(command)) {
            println!("README.md does not tell: {missing}");
        }
        let good = told.len() == COMMANDS.len() && ok == run && left.is_empty();
        Ok(timer.finish(if good { Outcome::Pass } else { Outcome::Fail }))
    }
}

struct Output {
    status: std::process::ExitStatus,
    stdout: String,
}

/// Runs it as a newcomer's shell would: nothing of the cargo around us, and nothing that a cargo home could know.
fn execute(command: &str, clone: &Path, home: &Path, environment: &Path) -> Result<Output> {
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else { bail!("an empty command") };
    let log = environment.join(format!("{}.out", words.clone().collect::<Vec<_>>().join("-")));
    let file = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut process = Command::new(program);
    process.args(words).current_dir(clone).stdin(Stdio::null()).stdout(file);
    cargo::forget_outer_package(&mut process);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") || text.starts_with("SAGABUS_") || text == "RUSTUP_TOOLCHAIN" {
            process.env_remove(&name);
        }
    }
    // Rustup finds its toolchains beside the cargo home unless told, and would see an empty machine. The outer rustup puts
    // its toolchain first on the path, where it would overrule the clone's own choice.
    process.env("CARGO_HOME", home).env("RUSTUP_HOME", rustup_home()?).env("PATH", path_without_toolchains()?);
    let status = process.status().with_context(|| format!("run {command}"))?;
    let stdout = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    print!("{stdout}");
    Ok(Output { status, stdout })
}

fn rustup_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("RUSTUP_HOME") {
        return Ok(home.into());
    }
    Ok(std::env::home_dir().context("find the home directory")?.join(".rustup"))
}

fn path_without_toolchains() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").context("read PATH")?;
    let toolchains = rustup_home()?.join("toolchains");
    let kept = std::env::split_paths(&path).filter(|dir| !dir.starts_with(&toolchains));
    std::env::join_paths(kept).context("write PATH")
}

/// Those of the two commands that stand in a code block of the README, alone on their line (a comment may follow).
fn commands_in(readme: &str) -> Vec<&'static str> {
    let mut in_block = false;
    let mut told = Vec::new();
    for line in readme.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let line = line.trim().trim_start_matches("$ ").split('#').next().unwrap_or_default().trim();
            told.extend(COMMANDS.iter().filter(|command| **command == line));
        }
    }
    told.dedup();
    COMMANDS.into_iter().filter(|command| told.contains(command)).collect()
}

/// From the verdict in the last line.
fn tests_passed(stdout: &str) -> Option<u64> {
    let verdict: Value = serde_json::from_str(stdout.lines().last()?).ok()?;
    verdict["counts"]["passed"].as_u64()
}

fn warn_about_uncommitted() -> Result<()> {
    let changes = proc::output(Command::new("git").current_dir(paths::root()).args(["status", "--porcelain"]))?;
    if !changes.is_empty() {
        println!("note: {} uncommitted changes here are not in the clone", changes.lines().count());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_count_only_in_a_code_block_and_whole() {
        let readme = "Run `cargo run --example order`.\n\n```sh\n$ cargo run --example order   # watch it\ncargo xtask test --require all\n```\ncargo xtask test\n";
        assert_eq!(commands_in(readme), [COMMANDS[0]]);
        let both = "```\ncargo xtask test\ncargo run --example order\ncargo xtask test\n```";
        assert_eq!(commands_in(both), COMMANDS);
    }

    #[test]
    fn the_number_of_tests_comes_from_the_last_line() {
        assert_eq!(tests_passed("noise\n{\"check\":\"test\",\"counts\":{\"passed\":12}}\n"), Some(12));
        assert_eq!(tests_passed("noise\n"), None);
    }
}
