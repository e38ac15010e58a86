//! Which suite is run against which planted bug: the cheapest one that finds it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::paths;

/// A suite that the bug is put before, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// A test program, or the package's own tests under the name `lib`: (package, test, the part of the tests' names
    /// that is run).
    Test(&'static str, &'static str, &'static str),
    /// `cargo xtask crash` at (layout, point, hit), by kill.
    Crash(&'static str, &'static str, u64),
}

/// A planted bug and its suites; each of them must turn red.
pub struct Plant {
    /// As core/src/sabotage.rs calls it.
    pub bug: &'static str,
    /// What must find it.
    pub suites: &'static [Suite],
}

const MEMORY: &str = "memory";
const SQLITE: &str = "sqlite_conformance";

const fn store(test: &'static str, cases: &'static str) -> Suite {
    Suite::Test("sagabus-outbox", test, cases)
}

const fn endpoint(cases: &'static str) -> Suite {
    Suite::Test("sagabus-tests", "acceptance", cases)
}

/// The table.
pub const ALL: &[Plant] = &[
    Plant { bug: "settle-before-commit", suites: &[Suite::Test("sagabus-tests", "simulation", "memory_split")] },
    Plant { bug: "skip-inbox-check", suites: &[store(MEMORY, ""), store(SQLITE, "gates")] },
    Plant { bug: "inbox-apart", suites: &[store(MEMORY, ""), Suite::Crash("split", "commit-returned", 1)] },
    Plant { bug: "dispatch-before-commit", suites: &[endpoint("sqlite_split::own_sql::nothing_leaves_before")] },
    Plant { bug: "outbox-delete-early", suites: &[Suite::Crash("split", "confirmed", 1)] },
    Plant { bug: "no-version-check", suites: &[store(MEMORY, ""), store(SQLITE, "sagas")] },
    Plant { bug: "no-instance-check", suites: &[store(MEMORY, ""), store(SQLITE, "sagas")] },
    Plant { bug: "timer-delete-early", suites: &[store(MEMORY, ""), store(SQLITE, "timers")] },
    Plant {
        bug: "commit-error-is-success",
        suites: &[store("memory_faults", ""), store("lib", "sqlite::tests::own::a_commit_that_fails")],
    },
    Plant {
        bug: "attempts-in-memory",
        suites: &[store(MEMORY, ""), endpoint("sqlite_joined::retries::attempts_survive")],
    },
    Plant { bug: "stop-drops-work", suites: &[endpoint("sqlite_joined::lifecycle::a_stop_under_load")] },
    Plant { bug: "second-saga-duplicate", suites: &[endpoint("sqlite_joined::fanout::each_handler")] },
];

/// Fails unless the table has exactly the product's bugs.
pub fn check_table() -> Result<()> {
    let file = paths::root().join("core/src/sabotage.rs");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let list = text.split("BUGS: &[(&str, &str)] = &[").nth(1).and_then(|rest| rest.split("];").next());
    let list = list.context("find BUGS in core/src/sabotage.rs")?;
    // a bug's name is the first of two strings, and the only one without a space
    let theirs: BTreeSet<&str> = list.split('"').skip(1).step_by(2).filter(|text| !text.contains(' ')).collect();
    let ours: BTreeSet<&str> = ALL.iter().map(|plant| plant.bug).collect();
    if theirs != ours {
        let differing: Vec<_> = theirs.symmetric_difference(&ours).collect();
        bail!("core/src/sabotage.rs and xtask/src/checks/sabotage/plan.rs differ: {differing:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_the_products() {
        super::check_table().unwrap();
    }
}
