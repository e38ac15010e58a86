//! The project's own commands.
//!
//! Each command is one file in [`checks`] (or a module of its own) that implements [`command::Check`]; it ends with one
//! JSON line, the [`verdict::Verdict`], and the process exits 0 only if that says `pass`.
//!
//! This is a library with a thin `main`, so that the helpers which the checks share count as used.

#![allow(missing_debug_implementations, reason = "a tool of this repository, not a public API")]
#![allow(
    clippy::disallowed_methods,
    reason = "xtask stands outside of the bus: it measures real time and starts real processes and threads"
)]

pub mod backends;
pub mod cargo;
pub mod checks;
pub mod command;
pub mod examples;
pub mod fresh_clone;
pub mod libtest;
pub mod msrv;
pub mod paths;
pub mod proc;
pub mod rust_source;
pub mod servers;
pub mod table;
pub mod test;
pub mod verdict;

use std::ffi::OsString;
use std::process::ExitCode;

use command::Entry;
use verdict::Verdict;

/// Parses the arguments, runs the command they name and prints its verdict as the last line of stdout.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut app = clap::Command::new("cargo xtask")
        .about("The project's own commands; the last line of each is its verdict as JSON")
        .subcommand_required(true)
        .arg_required_else_help(true);
    for entry in checks::ALL {
        app = app.subcommand(entry.command());
    }
    let matches = app.get_matches_from(args);
    let Some((name, matches)) = matches.subcommand() else { unreachable!("clap requires a subcommand") };
    let Some(entry) = checks::ALL.iter().find(|entry| entry.name() == name) else {
        unreachable!("clap accepts the table's names only")
    };
    proc::kill_children_on_signals();
    let verdict = execute(entry, matches);
    println!("{verdict}");
    verdict.exit_code()
}

fn execute(entry: &Entry, matches: &clap::ArgMatches) -> Verdict {
    let timer = verdict::Timer::start(entry.name());
    entry.run(matches).unwrap_or_else(|error| {
        // Whoever reads the last line must find one even when the command itself broke.
        eprintln!("error: {error:#}");
        timer.fail_with_error(&error)
    })
}
