//! The table of subcommands. A new check is one file here (a clap struct that implements [`crate::command::Check`]), its
//! `pub mod` line and its row below; help text, parsing, the verdict line and the exit code come with that. (A macro
//! would save the `mod` line, but rustfmt does not look into files that a macro declares.)
//!
//! Helpers: [`crate::proc`] for programs to kill and stop, [`crate::examples`] to build one with hidden features,
//! [`sagabus_testkit::rng`] for seeds, [`crate::backends::provide`] for a server, [`crate::table`] for people.

pub mod bank;
pub mod circles;
pub mod conformance;
pub mod crash;
pub mod diff;
pub mod fair;
pub mod fixture;
pub mod full;
pub mod hostile;
pub mod isolation;
pub mod kills;
pub mod nemesis;
pub mod orders;
pub mod plans;
pub mod poison;
pub mod race;
pub mod sabotage;
pub mod timers;
pub mod words;

use crate::command::Entry;

/// Every subcommand, in the order `cargo xtask help` shows them.
pub const ALL: &[Entry] = &[
    Entry::of::<crate::test::Test>(),
    Entry::of::<crate::servers::Servers>(),
    Entry::of::<crate::fresh_clone::FreshClone>(),
    Entry::of::<crate::msrv::Msrv>(),
    Entry::of::<words::Words>(),
    Entry::of::<circles::Circles>(),
    Entry::of::<full::Checks>(),
    Entry::of::<conformance::Conformance>(),
    Entry::of::<diff::Diff>(),
    Entry::of::<crash::Crash>(),
    Entry::of::<kills::Kills>(),
    Entry::of::<nemesis::NemesisRun>(),
    Entry::of::<orders::Orders>(),
    Entry::of::<poison::Poison>(),
    Entry::of::<sabotage::Sabotage>(),
    Entry::of::<race::Race>(),
    Entry::of::<bank::Bank>(),
    Entry::of::<plans::Plans>(),
    Entry::of::<isolation::Isolation>(),
    Entry::of::<fair::Fair>(),
    Entry::of::<hostile::Hostile>(),
    Entry::of::<timers::Timers>(),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn names_are_unique_and_arguments_are_consistent() {
        let names: BTreeSet<_> = ALL.iter().map(|entry| entry.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for entry in ALL {
            entry.command().debug_assert();
        }
    }
}
