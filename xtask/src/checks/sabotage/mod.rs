//! `cargo xtask sabotage`: known bugs, switched on one by one, must turn unchanged suites red.

pub mod plan;
pub mod suites;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use self::plan::{ALL, Plant, Suite};
use self::suites::{Suites, expect_green};
use crate::command::Check;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict};
use sagabus_testkit::rng::fresh_seed;

/// Plants bugs and runs the suites that must find them, after those were green without (counts: bugs, found, missed,
/// runs, green_without)
#[derive(Debug, Args)]
pub struct Sabotage {
    /// Only this bug
    #[arg(long)]
    bug: Option<String>,
    /// One suite per bug instead of all that must find it
    #[arg(long)]
    selection: bool,
    /// For the crash runs
    #[arg(long)]
    seed: Option<u64>,
    /// Accepted like everywhere; the suites leave nothing
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Sabotage {
    const NAME: &'static str = "sabotage";

    fn run(self) -> Result<Verdict> {
        plan::check_table()?;
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        let plants: Vec<&Plant> =
            ALL.iter().filter(|plant| self.bug.as_ref().is_none_or(|bug| bug == plant.bug)).collect();
        if plants.is_empty() {
            bail!("there is no such bug; there are {}", ALL.iter().map(|p| p.bug).collect::<Vec<_>>().join(", "));
        }
        let of = |plant: &Plant| if self.selection { &plant.suites[..1] } else { plant.suites };
        let mut needed: Vec<Suite> = plants.iter().flat_map(|plant| of(plant)).copied().collect();
        needed.sort();
        needed.dedup();
        let suites = Suites::build(&needed)?;
        let mut table = Table::new(["bug", "suite", "case", "seconds"]);
        for suite in &needed {
            let ran = suites.run(*suite, None, seed)?;
            println!("without a bug: {suite:?}: {} ({} s)", ran.case, ran.seconds);
            expect_green(*suite, &ran)?;
            table.row(["none".to_owned(), format!("{suite:?}"), ran.case, ran.seconds.to_string()]);
        }
        let (mut found, mut runs) = (0, 0);
        for plant in &plants {
            let mut red = true;
            for suite in of(plant) {
                let ran = suites.run(*suite, Some(plant.bug), seed)?;
                runs += 1;
                red &= !ran.green;
                let verdict = if ran.green { format!("NOT FOUND: {}", ran.case) } else { ran.case };
                println!("{}: {suite:?}: {verdict} ({} s)", plant.bug, ran.seconds);
                table.row([plant.bug.to_owned(), format!("{suite:?}"), verdict, ran.seconds.to_string()]);
            }
            found += u64::from(red);
        }
        println!("\n{table}");
        timer.count("bugs", plants.len()).count("found", found).count("missed", plants.len() as u64 - found);
        timer.count("runs", runs).count("green_without", needed.len());
        Ok(timer.finish(if found == plants.len() as u64 { Outcome::Pass } else { Outcome::Fail }))
    }
}
