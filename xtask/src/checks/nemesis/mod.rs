//! `cargo xtask nemesis`: servers are hurt while processes work, and nothing may be lost or done twice.

pub mod broker;
pub mod cluster_under_test;
pub mod kafka;
pub mod postgres;
pub mod proxied_broker;
pub mod rabbitmq;
pub mod server;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::proxied_broker::ProxiedBroker;
use super::crash::{Layouts, totals::counted};
use super::fixture::artifacts::Artifacts;
use super::fixture::backend::{Backend, Broker, Store};
use super::fixture::environment::{Installation, Layout};
use super::fixture::judge::{Judgement, judge};
use crate::command::Check;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// Something bad that happens to a server, or on the way to it.
pub struct Nemesis {
    /// What `--nemesis` calls it.
    pub name: &'static str,
    /// Does it, several times, under load; how often it struck.
    pub strike: fn(&mut cluster_under_test::ClusterUnderTest<'_>) -> Result<u64>,
}

/// Hurts the servers of a backend under load (counts: nemeses, struck, revived, redeliveries, relay_sends, messages, lost,
/// duplicated, ghosts, early, order_breaks; Kafka: offsets_checked, offsets_passed, keys_moved)
#[derive(Debug, Args)]
pub struct NemesisRun {
    /// Whose server is hurt: postgres (the store's), rabbitmq+… or kafka+… (the broker's)
    #[arg(long, default_value = "rabbitmq+postgres")]
    backend: Backend,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// Which (several with commas between them), or all
    #[arg(long, default_value = "all")]
    nemesis: String,
    /// How many processes share the work
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Milliseconds between two messages of each of six senders
    #[arg(long, default_value_t = 20)]
    pace_ms: u64,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep log, ledger and audit, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Default)]
struct Tally {
    struck: u64,
    revived: u64,
    redeliveries: u64,
    relay_sends: u64,
    offsets_checked: u64,
    offsets_passed: u64,
    keys_moved: usize,
    judgement: Judgement,
}

impl Check for NemesisRun {
    const NAME: &'static str = "nemesis";

    fn run(self) -> Result<Verdict> {
        self.run_as(Self::NAME)
    }
}

impl NemesisRun {
    /// What a hostile client does to a broker.
    pub fn hostile(backend: Backend, seed: Option<u64>, keep: Option<PathBuf>) -> Self {
        let nemesis = rabbitmq::HOSTILE.into();
        Self { backend, layout: Layouts::Both, nemesis, processes: 2, pace_ms: 20, seed, keep }
    }

    /// Runs it; the verdict is that of this check.
    pub fn run_as(self, check: &'static str) -> Result<Verdict> {
        let mut timer = Timer::start(check).seed(self.seed.unwrap_or(0));
        let known = match (self.backend.broker, self.backend.store) {
            (Some(Broker::RabbitMq), _) => rabbitmq::ALL,
            (Some(Broker::Kafka), _) => kafka::ALL,
            (None, Store::Postgres) => postgres::ALL,
            (None, Store::Sqlite) => bail!("there are no nemeses of {}", self.backend),
        };
        let names: Vec<&str> = self.nemesis.split(',').collect();
        let wanted: Vec<&Nemesis> =
            known.iter().filter(|nemesis| self.nemesis == "all" || names.contains(&nemesis.name)).collect();
        if wanted.len() < names.len() {
            let names: Vec<_> = known.iter().map(|nemesis| nemesis.name).collect();
            bail!("there is no nemesis {}; there are {}", self.nemesis, names.join(", "));
        }
        let layouts = self.layout.of(self.backend)?;
        let mut installation = Installation::assemble(self.backend)?;
        let proxied = match self.backend.broker {
            Some(Broker::RabbitMq) => Some(ProxiedBroker::start(&mut installation)?),
            // its clients are told by the brokers themselves where they are
            Some(Broker::Kafka) | None => None,
        };
        let proxied = proxied.as_ref();
        let artifacts = Artifacts::prepare(check, self.keep.as_deref())?;
        let mut table = Table::new(["nemesis", "struck", "revived", "messages", "redelivered", "verdict", "seconds"]);
        let (mut tally, mut idle, mut failures) = (Tally::default(), 0, 0);
        for (nemesis, layout) in wanted.iter().flat_map(|nemesis| layouts.iter().map(move |layout| (nemesis, layout))) {
            let name = format!("{}-{}", nemesis.name, layout.word());
            println!("{name}");
            let started = std::time::Instant::now();
            let dir = artifacts.run(&name);
            let outcome = self.once(nemesis, *layout, &installation, proxied, &dir);
            let clean = outcome.as_ref().is_ok_and(|one| one.judgement.is_clean() && one.offsets_passed == 0);
            artifacts.done(&dir, !clean)?;
            let seconds = seconds_since(started).to_string();
            match outcome {
                Ok(one) => {
                    let verdict = if clean { "clean" } else { "FAILED" };
                    one.judgement.examples.iter().for_each(|example| println!("{example}"));
                    table.row([
                        &name,
                        &one.struck.to_string(),
                        &one.revived.to_string(),
                        &one.judgement.messages.to_string(),
                        &one.redeliveries.to_string(),
                        verdict,
                        &seconds,
                    ]);
                    idle += usize::from(one.struck == 0);
                    tally.add(one);
                }
                Err(error) => {
                    println!("{name}: {error:#}");
                    failures += 1;
                    table.row([name.as_str(), "", "", "", "", "FAILED", &seconds]);
                }
            }
        }
        println!("\n{table}");
        timer.count("nemeses", wanted.len()).count("struck", tally.struck).count("revived", tally.revived);
        timer.count("failed", failures).count("redeliveries", tally.redeliveries);
        timer.count("relay_sends", tally.relay_sends);
        counted(&mut timer, &tally.judgement);
        let on_kafka = self.backend.broker == Some(Broker::Kafka);
        if on_kafka {
            timer.count("offsets_checked", tally.offsets_checked).count("offsets_passed", tally.offsets_passed);
            timer.count("keys_moved", tally.keys_moved);
        }
        Ok(timer.finish(if failures > 0 || !tally.judgement.is_clean() || tally.offsets_passed > 0 {
            Outcome::Fail
        } else if idle > 0 || (on_kafka && tally.offsets_checked == 0) {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }

    fn once(
        &self,
        nemesis: &Nemesis,
        layout: Layout,
        installation: &Installation,
        proxied: Option<&ProxiedBroker>,
        dir: &Path,
    ) -> Result<Tally> {
        let mut cluster = cluster_under_test::ClusterUnderTest::start(
            installation,
            layout,
            proxied,
            dir,
            self.processes,
            self.pace_ms,
        )?;
        let struck = (nemesis.strike)(&mut cluster).with_context(|| format!("the nemesis {}", nemesis.name))?;
        let cluster_under_test::Ended { observed, revived, offsets_checked, passed } = cluster.end()?;
        let mut judgement = judge(&observed);
        judgement.examples.extend(passed.iter().take(10).cloned());
        Ok(Tally {
            struck,
            revived,
            redeliveries: observed.redeliveries,
            relay_sends: observed.relay_sends,
            offsets_checked,
            offsets_passed: passed.len() as u64,
            keys_moved: observed.moved.len(),
            judgement,
        })
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.struck += other.struck;
        self.revived += other.revived;
        self.redeliveries += other.redeliveries;
        self.relay_sends += other.relay_sends;
        self.offsets_checked += other.offsets_checked;
        self.offsets_passed += other.offsets_passed;
        self.keys_moved += other.keys_moved;
        self.judgement.add(other.judgement);
    }
}
