//! `cargo xtask kills`: processes are killed at random moments, under load, for minutes.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::crash::{Layouts, totals::counted};
use super::fixture::artifacts::Artifacts;
use super::fixture::backend::Backend;
use super::fixture::environment::{self, Environment, Installation, Layout};
use super::fixture::judge::{Judgement, judge};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict};
use sagabus_testkit::rng::{Rng, fresh_seed};

/// Longer than a pause of a busy machine, short enough that a frozen process is given up soon.
const LEASE: Duration = Duration::from_secs(1);
/// After so many kills there is one freeze.
const STOP_EVERY: u64 = 10;

/// Kills processes under load; a kill counts only if something was committed since the last (counts: kills, stops,
/// redeliveries, relay_sends, messages, lost, duplicated, ghosts, early, order_breaks)
#[derive(Debug, Args)]
pub struct Kills {
    /// The store, alone or behind a broker: sqlite, postgres, rabbitmq+sqlite, rabbitmq+postgres, kafka+…
    #[arg(long, default_value = "sqlite")]
    backend: Backend,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// How many kills, in all layouts together
    #[arg(long, default_value_t = 200)]
    n: u64,
    /// How many processes share the work
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Milliseconds between two messages of each of six senders
    #[arg(long, default_value_t = 2)]
    pace_ms: u64,
    /// Whom it hits, and when
    #[arg(long)]
    seed: Option<u64>,
    /// Keep log, ledger and audit, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Default)]
struct Tally {
    kills: u64,
    stops: u64,
    redeliveries: u64,
    relay_sends: u64,
    judgement: Judgement,
}

impl Check for Kills {
    const NAME: &'static str = "kills";

    fn run(self) -> Result<Verdict> {
        if self.processes == 0 {
            bail!("there must be a process");
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        let installation = Installation::assemble(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let layouts = self.layout.of(self.backend)?;
        let mut rng = Rng::new(seed);
        let mut tally = Tally::default();
        for (at, layout) in layouts.iter().enumerate() {
            let goal = (self.n * (at as u64 + 1)).div_ceil(layouts.len() as u64);
            let dir = artifacts.run(layout.word());
            let before = tally.judgement.is_clean();
            let result = self.storm(*layout, goal, &mut rng, &installation, &dir, &mut tally);
            let failed = result.is_err() || before != tally.judgement.is_clean();
            artifacts.done(&dir, failed)?;
            result.with_context(|| format!("the {} layout", layout.word()))?;
        }
        tally.judgement.examples.iter().for_each(|example| println!("{example}"));
        timer.count("kills", tally.kills).count("stops", tally.stops);
        timer.count("redeliveries", tally.redeliveries).count("relay_sends", tally.relay_sends);
        counted(&mut timer, &tally.judgement);
        Ok(timer.finish(if !tally.judgement.is_clean() {
            Outcome::Fail
        } else if tally.kills < self.n || tally.redeliveries == 0 {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Kills {
    fn storm(
        &self,
        layout: Layout,
        goal: u64,
        rng: &mut Rng,
        installation: &Installation,
        dir: &std::path::Path,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut environment = Environment::create(installation, dir, layout, LEASE)?;
        let generator = environment.generator(0, self.pace_ms, 40, 6)?;
        let mut nodes = (0..self.processes).map(|_| environment.node()).collect::<Result<Vec<_>>>()?;
        let mut marks = progress(&mut environment)?;
        while tally.kills < goal {
            thread::sleep(Duration::from_millis(rng.between(20, 200)));
            marks = committed_since(&mut environment, marks)?;
            let at = rng.below(nodes.len() as u64) as usize;
            if tally.kills % STOP_EVERY == STOP_EVERY - 1 {
                freeze(&mut nodes[at], rng)?;
                tally.stops += 1;
            }
            if !nodes[at].kill9()? {
                bail!("{} had ended by itself:\n{}", nodes[at].name(), crate::proc::tail(nodes[at].stderr(), 20));
            }
            tally.kills += 1;
            nodes[at] = environment.launch(None)?;
            if tally.kills.is_multiple_of(20) {
                println!("{}: {} kills, backlog {}", layout.word(), tally.kills, environment.backlog()?);
            }
        }
        environment::stop(generator).context("the generator")?;
        if !environment.drained(Duration::from_secs(180))? {
            bail!("the work does not end: {}", environment.leftovers()?);
        }
        for mut node in nodes {
            // one that was started a moment ago would take the signal for the default one
            environment::ready(&mut node)?;
            environment::stop(node)?;
        }
        let observed = environment.observed()?;
        tally.redeliveries += observed.redeliveries;
        tally.relay_sends += observed.relay_sends;
        tally.judgement.add(judge(&observed));
        Ok(())
    }
}

/// Longer than the lease, so that the others take over and it comes back to what is no longer its own.
fn freeze(node: &mut Proc, rng: &mut Rng) -> Result<()> {
    node.stop()?;
    thread::sleep(LEASE + Duration::from_millis(rng.between(200, 1200)));
    node.cont()?;
    thread::sleep(Duration::from_millis(rng.between(50, 300)));
    Ok(())
}

/// Grows with each commit of a handler.
fn progress(environment: &mut Environment<'_>) -> Result<i64> {
    environment
        .store()?
        .number("select coalesce((select max(seq) from audit), 0) + coalesce((select max(id) from effect), 0)")
}

fn committed_since(environment: &mut Environment<'_>, before: i64) -> Result<i64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = progress(environment)?;
        if now > before {
            return Ok(now);
        }
        if Instant::now() > deadline {
            bail!("nothing was committed for a minute: {}", environment.leftovers()?);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
