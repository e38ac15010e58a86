//! `cargo xtask hostile`: bad input of every kind.

pub mod cases;
pub mod given;
pub mod messages;
pub mod refusals;
pub mod run;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::run::{Target, wrong};
use crate::checks::fixture::artifacts::Artifacts;
use crate::checks::fixture::backend::{Backend, Broker, Store};
use crate::checks::fixture::programs::{Build, Programs};
use crate::checks::nemesis::NemesisRun;
use crate::command::Check;
use crate::proc::Proc;
use crate::table::Table;
use crate::verdict::{self, Timer, Verdict};
use sagabus_testkit::rng::{Rng, fresh_seed};

/// The message behind a bad one may wait so long: a handler may block one of a machine's two threads.
const BEHIND: Duration = Duration::from_secs(3);

/// Puts bad input of every kind before an endpoint (counts: cases, dead_letters, effects, deaths, refusals, lost,
/// slowest_behind_ms, failed)
#[derive(Debug, Args)]
pub struct Hostile {
    /// Behind which transport: sqlite (its own queues, every case), or rabbitmq+sqlite and rabbitmq+postgres (what a hostile
    /// AMQP client can do; counts as of `nemesis`)
    #[arg(long, default_value = "sqlite")]
    backend: Backend,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Message ids and shards are drawn from this
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the database in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Hostile {
    const NAME: &'static str = "hostile";

    fn run(self) -> Result<Verdict> {
        match (self.backend.broker, self.backend.store) {
            (None, Store::Sqlite) => {}
            (Some(Broker::RabbitMq), _) => {
                return NemesisRun::hostile(self.backend, self.seed, self.keep).run_as(Self::NAME);
            }
            _ => bail!("there are no hostile cases of {} yet", self.backend),
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        let programs = Programs::build(Build::Chaos(None))?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let dir = artifacts.run("hostile");
        let mut init = run::command(&programs, &dir)?;
        Proc::spawn("init", init.arg("--init"), &dir)?.expect_success(Duration::from_secs(30))?;
        let mut rng = Rng::new(seed);
        let mut table = Table::new(["case", "expected", "result"]);
        let (mut dead, mut effects, mut deaths, mut failed, mut cases) = (0, 0, 0, 0, 0);
        let mut slowest = Duration::ZERO;
        let mut target = Target::start(&programs, &dir)?;
        for case in cases::all(&mut rng) {
            if self.only.as_ref().is_some_and(|only| !case.name.contains(only)) {
                continue;
            }
            cases += 1;
            let result = match target.face(&case, &mut rng) {
                Ok(outcome) => {
                    dead += outcome.dead.len();
                    effects += outcome.effects.len();
                    deaths += usize::from(outcome.died);
                    if !case.lethal {
                        slowest = slowest.max(outcome.behind);
                    }
                    let late = !case.lethal && outcome.behind > BEHIND;
                    wrong(&case, &outcome)
                        .or_else(|| late.then(|| format!("the message behind it took {:?}", outcome.behind)))
                }
                Err(error) => {
                    // whatever it left must not be counted against the next one
                    let text = format!("{error:#}");
                    target = restart(target, &programs, &dir)?;
                    Some(text)
                }
            };
            failed += u32::from(result.is_some());
            if let Some(result) = &result {
                println!("{}: {result}", case.name);
            }
            table.row([case.name, format!("{:?}", case.expect).chars().take(60).collect(), text(result)]);
        }
        let mut db = target.stop().context("stop in good order")?;
        let lost = db.number("select (select count(*) from queue) + (select count(*) from retry)")?;
        drop(db);
        let refusals = if self.only.is_some() { Vec::new() } else { refusals::all(&programs, &dir)? };
        for (name, result) in &refusals {
            failed += u32::from(result.is_some());
            table.row([name.clone(), "a clear error".into(), text(result.clone())]);
        }
        println!("{table}");
        timer.count("cases", cases).count("dead_letters", dead).count("effects", effects).count("deaths", deaths);
        timer.count("refusals", refusals.len()).count("lost", lost);
        timer.count("slowest_behind_ms", slowest.as_millis() as u64).count("failed", failed);
        if self.keep.is_none() && failed == 0 {
            std::fs::remove_dir_all(&dir).context("remove the database")?;
        }
        Ok(timer.finish(if failed > 0 || lost > 0 {
            verdict::Outcome::Fail
        } else if cases == 0 {
            verdict::Outcome::Vacuous
        } else {
            verdict::Outcome::Pass
        }))
    }
}

fn text(result: Option<String>) -> String {
    result.map_or("ok".into(), |what| format!("FAILED: {}", what.chars().take(200).collect::<String>()))
}

fn restart<'a>(old: Target<'a>, programs: &'a Programs, dir: &'a std::path::Path) -> Result<Target<'a>> {
    drop(old);
    let mut db = crate::checks::fixture::db::Db::open(&dir.join("shop.db"))?;
    db.run("delete from queue; delete from retry; delete from parked")?;
    drop(db);
    Target::start(programs, dir)
}
