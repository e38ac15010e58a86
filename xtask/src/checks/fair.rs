//! `cargo xtask fair`: several processes on one file, each with its share.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::fixture::artifacts::Artifacts;
use super::fixture::db::Db;
use super::fixture::environment::{lines, ready};
use super::fixture::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict};

/// How long the shards may take to be shared out.
const SHARING: Duration = Duration::from_secs(20);

/// Measures what each of several processes on one file gets done (counts: processes, messages, messages_per_s,
/// least_percent_of_mean, queue_difference_percent)
#[derive(Debug, Args)]
pub struct Fair {
    /// How many; no more than there are shards
    #[arg(long, default_value_t = 4)]
    processes: usize,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Messages in the queue at the start; what is left at the end must not be nothing
    #[arg(long, default_value_t = 600_000)]
    messages: u64,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the database in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Fair {
    const NAME: &'static str = "fair";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let programs = Programs::build(Build::Release)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let dir = artifacts.run("fair");
        let command = || -> Result<Command> {
            let mut command = Command::new(programs.path("fair-node")?);
            command.arg("--store").arg(format!("sqlite://{}", dir.join("shop.db").display()));
            Ok(command)
        };
        let mut preload = command()?;
        preload.args(["--preload", &self.messages.to_string()]);
        Proc::spawn("preload", &mut preload, &dir)?
            .expect_success(Duration::from_secs(300))
            .context("fill the queue")?;
        let mut nodes = Vec::new();
        for n in 0..self.processes {
            nodes.push(Proc::spawn(format!("node{n}"), &mut command()?, &dir)?);
        }
        for node in &mut nodes {
            ready(node)?;
        }
        let mut db = Db::open(&dir.join("shop.db"))?;
        shared_out(&mut db, self.processes)?;
        let queued = "select count(*) from queue";
        let (before, left) = (handled(&nodes)?, db.number(queued)?);
        thread::sleep(Duration::from_secs(self.seconds));
        let (after, rest) = (handled(&nodes)?, db.number(queued)?);
        for node in &mut nodes {
            node.terminate()?;
        }
        for node in &mut nodes {
            node.expect_success(Duration::from_secs(40))?;
        }
        let mut table = Table::new(["process", "messages", "commits"]);
        let mut done = Vec::new();
        for ((node, before), after) in nodes.iter().zip(before).zip(after) {
            done.push(after.0 - before.0);
            table.row([node.name().to_owned(), (after.0 - before.0).to_string(), (after.1 - before.1).to_string()]);
        }
        println!("{table}");
        let total: u64 = done.iter().sum();
        let mean = total as f64 / self.processes as f64;
        let least = done.iter().min().copied().unwrap_or(0) as f64;
        // the processes' own counts against the file
        let taken = left.abs_diff(rest);
        let difference = 100.0 * taken.abs_diff(total) as f64 / taken.max(1) as f64;
        timer.count("processes", self.processes).count("messages", total);
        timer.count("messages_per_s", total / self.seconds.max(1));
        timer.count("least_percent_of_mean", (100.0 * least / mean.max(1.0)).round());
        timer.count("queue_difference_percent", difference.round());
        drop(db);
        if self.keep.is_none() {
            std::fs::remove_dir_all(&dir).context("remove the database")?;
        }
        Ok(timer.finish(if rest == 0 || total == 0 {
            println!("the queue ran dry: give it more --messages");
            Outcome::Vacuous
        } else if least * 2.0 < mean || difference > 20.0 {
            Outcome::Fail
        } else {
            Outcome::Pass
        }))
    }
}

/// Waits until every process has its share of the shards. The first one to start has all of them for a while, and is
/// alone in working then.
fn shared_out(db: &mut Db, processes: usize) -> Result<()> {
    let owners = format!(
        "select count(*) from (select node from shard where node is not null group by node \
         having count(*)>=(select count(*) from shard)/{processes})"
    );
    let deadline = Instant::now() + SHARING;
    loop {
        let owners = db.number(&owners)?;
        if usize::try_from(owners)? == processes {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("after {SHARING:?} {owners} of {processes} processes have their share of the shards");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What each has said last: (messages, commits).
fn handled(nodes: &[Proc]) -> Result<Vec<(u64, u64)>> {
    let last = |node: &Proc| {
        let lines = lines(node);
        let line = lines.iter().rev().find(|line| line["handled"].is_u64())?;
        Some((line["handled"].as_u64()?, line["commits"].as_u64()?))
    };
    let mut counts = Vec::new();
    for node in nodes {
        match last(node) {
            Some(count) => counts.push(count),
            None => bail!("{} has not said what it has done", node.name()),
        }
    }
    Ok(counts)
}
