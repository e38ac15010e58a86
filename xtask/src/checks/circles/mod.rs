//! `cargo xtask circles`: files of a crate that need each other, each circle with a reason.

mod graph;
mod reasons;
mod source;

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;

use crate::command::Check;
use crate::paths;
use crate::verdict::{Outcome, Timer, Verdict};
use graph::Graph;
use reasons::{CRATES, REASONS};

/// Looks for files of a crate that use each other, by their paths with `crate`, `super` and `self`. A parent that is used
/// by its own children is none (counts: files, arrows, circles, without_reason, without_circle)
#[derive(Debug, Args)]
pub struct Circles {
    /// Show what ties each circle
    #[arg(long)]
    ties: bool,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
}

impl Check for Circles {
    const NAME: &'static str = "circles";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let (mut files, mut arrows, mut circles, mut without_reason) = (0, 0, 0, 0);
        let mut explained = BTreeSet::new();
        for name in CRATES {
            let graph = Graph::of(&source::read(&paths::root().join(name))?);
            files += graph.files();
            arrows += graph.arrows();
            for circle in graph.circles() {
                circles += 1;
                let reason = REASONS.iter().find(|reason| reason.source == *name && reason.files == circle);
                match reason {
                    Some(reason) => {
                        explained.insert((reason.source, reason.files));
                        println!("{name}: {}: {}", circle.join(", "), reason.reason);
                    }
                    None => {
                        without_reason += 1;
                        println!("{name}: {}: NO REASON", circle.join(", "));
                    }
                }
                if self.ties || reason.is_none() {
                    graph.ties(&circle).iter().for_each(|tie| println!("    {tie}"));
                }
            }
        }
        let left = REASONS.iter().filter(|reason| !explained.contains(&(reason.source, reason.files)));
        let without_circle = left.inspect(|reason| println!("{reason:?}: no such circle")).count();
        timer.count("files", files).count("arrows", arrows).count("circles", circles);
        timer.count("without_reason", without_reason).count("without_circle", without_circle);
        Ok(timer.finish(match (without_reason + without_circle, arrows) {
            (0, 0) => Outcome::Vacuous,
            (0, _) => Outcome::Pass,
            _ => Outcome::Fail,
        }))
    }
}
