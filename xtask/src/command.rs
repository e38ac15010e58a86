//! What a subcommand is, and how the table in [`crate::checks`] holds them.

use anyhow::Result;
use clap::{ArgMatches, Args, Command};

use crate::verdict::Verdict;

/// A subcommand: its arguments (a clap struct, whose doc comment is the help text) and what it does.
pub trait Check: Args {
    /// The word on the command line, and the `check` of the verdict.
    const NAME: &'static str;

    /// Does it. An error becomes a `fail` verdict, so only report as an error what kept the check from judging.
    fn run(self) -> Result<Verdict>;
}

/// A row of the table of subcommands.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    name: &'static str,
    augment: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<Verdict>,
}

impl Entry {
    /// The row for `C`.
    pub const fn of<C: Check>() -> Self {
        Self { name: C::NAME, augment: C::augment_args, run: |matches| C::from_arg_matches(matches)?.run() }
    }

    /// The word on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The clap command, with help.
    pub fn command(&self) -> Command {
        (self.augment)(Command::new(self.name))
    }

    /// Parses and runs.
    pub fn run(&self, matches: &ArgMatches) -> Result<Verdict> {
        (self.run)(matches)
    }
}
