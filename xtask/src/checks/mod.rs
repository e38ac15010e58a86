//! The table of subcommands. A new check is one file here and one line below.

use crate::command::Entry;

/// Every subcommand, in the order `cargo xtask help` shows them.
pub const ALL: &[Entry] = &[
    Entry::of::<crate::test::Test>(),
    Entry::of::<crate::servers::Servers>(),
    Entry::of::<crate::fresh_clone::FreshClone>(),
    Entry::of::<crate::msrv::Msrv>(),
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
