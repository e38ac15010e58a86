//! `cargo xtask race`: many processes start one saga at once, and several compete for handling it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::crash::{Layouts, totals::counted};
use super::fixture::artifacts::Artifacts;
use super::fixture::backend::Backend;
use super::fixture::environment::{self, DRAIN, Environment, Installation, Layout};
use super::fixture::judge::{Judgement, judge};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict};

/// Long, so that nobody loses a shard in the rush.
const LEASE: Duration = Duration::from_secs(6);

/// Has many processes send the starting message of one key at once, to several that handle them (counts: processes,
/// handling_processes, sagas_started, redeliveries, messages, lost, duplicated, ghosts, early, order_breaks)
#[derive(Debug, Args)]
pub struct Race {
    /// How many send
    #[arg(long, default_value_t = 50)]
    processes: u64,
    /// How many share the handling
    #[arg(long, default_value_t = 6)]
    handlers: usize,
    /// The store, alone or behind a broker
    #[arg(long, default_value = "sqlite")]
    backend: Backend,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep log, ledger and audit, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Default)]
struct Seen {
    started: u64,
    handling: usize,
    redeliveries: u64,
    judgement: Judgement,
}

impl Check for Race {
    const NAME: &'static str = "race";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let installation = Installation::assemble(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let mut seen = Seen::default();
        let layouts = self.layout.of(self.backend)?;
        for layout in layouts {
            let dir = artifacts.run(layout.word());
            let result = self.once(*layout, &installation, &dir, &mut seen);
            artifacts.done(&dir, result.is_err() || !seen.judgement.is_clean())?;
            result.with_context(|| format!("the {} layout", layout.word()))?;
        }
        seen.judgement.examples.iter().for_each(|example| println!("{example}"));
        timer.count("processes", self.processes).count("handling_processes", seen.handling);
        timer.count("sagas_started", seen.started).count("redeliveries", seen.redeliveries);
        counted(&mut timer, &seen.judgement);
        let once = seen.started == layouts.len() as u64;
        Ok(timer.finish(if !seen.judgement.is_clean() || !once {
            Outcome::Fail
        } else if seen.handling < 2 || seen.judgement.messages < self.processes {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Race {
    fn once(&self, layout: Layout, installation: &Installation, dir: &Path, seen: &mut Seen) -> Result<()> {
        let mut environment = Environment::create(installation, dir, layout, LEASE)?;
        let barrier = dir.join("go");
        let mut nodes = vec![environment.racer("ledger", &["--only", "ledger"])?];
        for n in 0..self.handlers {
            nodes.push(environment.racer(&format!("handler{n}"), &["--only", "chaos"])?);
        }
        let mut racers: Vec<Proc> = Vec::new();
        for n in 0..self.processes {
            let (barrier, n) = (barrier.display().to_string(), n.to_string());
            racers.push(environment.racer(&format!("racer{n}"), &["--barrier", &barrier, "--add", &n])?);
        }
        for process in racers.iter_mut().chain(&mut nodes) {
            environment::ready(process)?;
        }
        // until everyone has its share of the shards, nobody competes
        thread::sleep(LEASE / 2);
        fs::write(&barrier, "").context("open the barrier")?;
        let mut sent = BTreeSet::new();
        let deadline = Instant::now() + DRAIN;
        while (sent.len() as u64) < self.processes {
            if Instant::now() > deadline {
                bail!("only {} of {} messages were accepted", sent.len(), self.processes);
            }
            sent.extend(racers.iter().flat_map(environment::lines).filter_map(|line| line["sent"].as_u64()));
            thread::sleep(Duration::from_millis(20));
        }
        let log: String = sent
            .iter()
            .map(|n| {
                format!("{{\"op\":\"try\",\"kind\":\"add\",\"key\":\"one\",\"n\":{n}}}\n{{\"op\":\"ok\",\"n\":{n}}}\n")
            })
            .collect();
        fs::write(dir.join("generator.jsonl"), log).context("write the log")?;
        if !environment.drained(DRAIN)? {
            bail!("the work does not end: {}", environment.leftovers()?);
        }
        for mut racer in racers {
            racer.expect_success(DRAIN)?;
        }
        let ledger = nodes[0].pid();
        for node in &mut nodes {
            node.terminate()?;
        }
        for mut node in nodes {
            node.expect_success(DRAIN)?;
        }
        let observed = environment.observed()?;
        seen.started +=
            observed.audit.iter().filter(|audit| audit.tbl == "saga" && audit.op == "insert").count() as u64;
        seen.handling += observed.pids.iter().filter(|pid| **pid != ledger).count();
        seen.redeliveries += observed.redeliveries;
        seen.judgement.add(judge(&observed));
        Ok(())
    }
}
