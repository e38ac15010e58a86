//! `cargo xtask orders`: the order example, with a process for each role, some of which are killed; judged by its own rows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::crash::{Layouts, orders::judge, totals::counted};
use super::fixture::artifacts::Artifacts;
use super::fixture::backend::{self, Backend, Urls};
use super::fixture::environment::{Installation, Layout};
use super::fixture::judge::Judgement;
use crate::command::Check;
use crate::proc::{Proc, tail};
use crate::verdict::{Outcome, Timer, Verdict};
use sagabus_testkit::rng::{Rng, fresh_seed};

/// Who runs, in the order in which they are started.
const ROLES: [&str; 4] = ["saga", "payment", "shipping", "place"];
/// With every second order failing in one way or another.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs the order example with saga, payment, shipping and customers in processes of their own, and kills some of them
/// (counts: processes, kills, messages, lost, duplicated, ghosts)
#[derive(Debug, Args)]
pub struct Orders {
    /// The store, alone or behind a broker: sqlite, postgres, rabbitmq+sqlite, rabbitmq+postgres, kafka+…
    #[arg(long, default_value = "sqlite")]
    backend: Backend,
    /// How many orders
    #[arg(long, default_value_t = 400)]
    orders: u64,
    /// How many kills
    #[arg(long, default_value_t = 6)]
    kills: u64,
    /// Whom they hit, and when
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the rows, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Orders {
    const NAME: &'static str = "orders";

    fn run(self) -> Result<Verdict> {
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        let installation = Installation::assemble(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let layout = *Layouts::Split.of(self.backend)?.first().context("a layout")?;
        let dir = artifacts.run("orders");
        let result = self.once(&installation, layout, &dir, &mut Rng::new(seed));
        let failed = result.as_ref().map_or(true, |(_, judgement)| !judgement.is_clean());
        artifacts.done(&dir, failed)?;
        let (kills, judgement) = result?;
        judgement.examples.iter().for_each(|example| println!("{example}"));
        timer.count("processes", ROLES.len() as u64 + kills).count("kills", kills);
        counted(&mut timer, &judgement);
        Ok(timer.finish(if !judgement.is_clean() {
            Outcome::Fail
        } else if kills < self.kills {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Orders {
    fn once(&self, installation: &Installation, layout: Layout, dir: &Path, rng: &mut Rng) -> Result<(u64, Judgement)> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = installation.servers.prepare(dir, layout)?;
        let mut processes = Vec::new();
        for role in ROLES {
            processes.push(self.spawn(installation, &urls, role, dir)?);
        }
        let mut kills = 0;
        while kills < self.kills {
            thread::sleep(Duration::from_millis(rng.between(300, 900)));
            let at = rng.below(ROLES.len() as u64) as usize;
            // one that has nothing left to do ends by itself
            if !processes[at].kill9()? {
                break;
            }
            kills += 1;
            processes[at] = self.spawn(installation, &urls, ROLES[at], dir)?;
        }
        for process in &mut processes {
            let Some(status) = process.wait_for(LIMIT)? else { bail!("{} does not end", process.name()) };
            if !status.success() {
                let said = [process.stdout(), process.stderr()].map(|file| tail(file, 20)).join("\n");
                bail!("{} ended with {status}:\n{said}", process.name());
            }
        }
        let judgement = judge(&mut backend::store_of(dir)?, self.orders)?;
        let mut remove = Command::new(installation.programs.path("chaos-node")?);
        remove.args(["--remove", "--transport", &urls.transport, "--store", &urls.store]);
        Proc::spawn("remove", &mut remove, dir)?.expect_success(Duration::from_secs(30))?;
        Ok((kills, judgement))
    }

    fn spawn(&self, installation: &Installation, urls: &Urls, role: &str, dir: &Path) -> Result<Proc> {
        let mut command = Command::new(installation.programs.path("order")?);
        command.args(["--transport", &urls.transport, "--store", &urls.store, "--role", role]);
        command.args(["--orders", &self.orders.to_string(), "--pace", "10", "--timeout", "2000", "--quiet"]);
        Proc::spawn(role, command.env("RUST_BACKTRACE", "0"), dir)
    }
}
