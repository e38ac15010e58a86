//! Which crash points there are in which layout, and how each is reached. The list of names is the product's own
//! (core/src/crash.rs); that both agree is checked at each run.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::checks::fixture::environment::Layout;
use crate::paths;

/// What must happen before a process can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Work is enough.
    Work,
    /// It was asked to end, with work in flight.
    Ending,
    /// Another process died before, and left its work: according to the first of these plans, or if it left nothing
    /// for this point, to the next.
    After(&'static [&'static str]),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// The product's name for it.
    pub name: &'static str,
    /// The latest hit that is drawn: 20 messages reach it at least that often, most of the time.
    pub most: u64,
    /// How it is reached.
    pub way: Way,
    /// Why it does not exist in the joined layout.
    pub not_joined: Option<&'static str>,
}

const NO_OUTBOX: Option<&str> = Some("the commit puts the message into its queue itself: there is no outbox");

const fn work(name: &'static str, most: u64) -> Point {
    Point { name, most, way: Way::Work, not_joined: None }
}

const fn split(name: &'static str, most: u64) -> Point {
    Point { name, most, way: Way::Work, not_joined: NO_OUTBOX }
}

/// Which of the first commits has messages to send depends on the batches, and a broker may confirm them at once; whoever
/// dies with a batch of them sent and unconfirmed leaves rows for certain.
const LEAVE_ROWS: &[&str] = &["committed:3:kill", "publish-sent:1:kill"];

/// The table, in the order of a message's way.
pub const ALL: &[Point] = &[
    work("received", 12),
    work("loaded", 4),
    work("handler-wrote", 8),
    work("handled", 20),
    work("commit-applied", 8),
    work("commit-returned", 8),
    work("committed", 8),
    split("publish-sent", 3),
    split("confirmed", 3),
    split("outbox-deleted", 3),
    work("settling", 4),
    work("settled", 4),
    work("deferred", 2),
    work("buried", 2),
    work("timer-read", 2),
    work("timer-handled", 2),
    Point { name: "relay-read", most: 1, way: Way::After(LEAVE_ROWS), not_joined: NO_OUTBOX },
    Point { name: "draining", most: 3, way: Way::Ending, not_joined: None },
];

impl Point {
    /// Why it does not exist in a layout, if it does not.
    pub fn absent(&self, layout: Layout) -> Option<&'static str> {
        match layout {
            Layout::Joined => self.not_joined,
            Layout::Split => None,
        }
    }

    /// The point of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        match ALL.iter().find(|point| point.name == name) {
            Some(point) => Ok(point),
            None => bail!("there is no crash point {name}; there are {}", names(ALL.iter().map(|p| p.name))),
        }
    }
}

/// Fails unless the table names exactly the product's points.
pub fn check_table() -> Result<()> {
    let file = paths::root().join("core/src/crash.rs");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let list = text.split("POINTS: &[&str] = &[").nth(1).and_then(|rest| rest.split("];").next());
    let list = list.context("find POINTS in core/src/crash.rs")?;
    let theirs: BTreeSet<&str> =
        list.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
    let ours: BTreeSet<&str> = ALL.iter().map(|point| point.name).collect();
    if theirs != ours {
        bail!(
            "the crash points of core/src/crash.rs and of xtask/src/checks/crash/points.rs differ: {}",
            names(theirs.symmetric_difference(&ours).copied())
        );
    }
    Ok(())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_the_products() {
        super::check_table().unwrap();
    }
}
