//! `cargo xtask bank`: many processes move money between the rows of a table of the user's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::crash::Layouts;
use super::fixture::artifacts::Artifacts;
use super::fixture::backend::{Backend, Store, Urls};
use super::fixture::db::Db;
use super::fixture::environment::{Installation, Layout, ready, stop};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict};
use sagabus_testkit::rng::{Rng, fresh_seed};

const LIMIT: Duration = Duration::from_secs(180);

/// So often transfers are sent at most, in each layout.
const ROUNDS: u32 = 10;

const HANDLING: &str = "select count(distinct pid) from entry";

/// Moves money by own SQL in handlers' transactions, in several processes of which one is killed now and then (counts:
/// processes, handling_processes, transfers, moved, kills, snapshots, sum_breaks, negative, lost, duplicated, wrong_balances)
#[derive(Debug, Args)]
pub struct Bank {
    /// The store: postgres, alone or behind a broker
    #[arg(long, default_value = "postgres")]
    backend: Backend,
    /// Where the queues lie
    #[arg(long, value_enum, default_value = "both")]
    layout: Layouts,
    /// How many processes share the work, each with its own connections
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// How many accounts, with 100 each
    #[arg(long, default_value_t = 100)]
    accounts: i64,
    /// How many transfers at a time, in each layout: more follow until
    /// as many processes as there are have handled one and one was killed
    #[arg(long, default_value_t = 3000)]
    transfers: i64,
    /// Whom a kill hits, and what is transferred
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the tables, as JSON lines, in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Default)]
struct Seen {
    kills: u64,
    snapshots: u64,
    sum_breaks: u64,
    negative: u64,
    lost: i64,
    duplicated: i64,
    wrong: i64,
    moved: i64,
    transfers: i64,
    /// In the layout with the fewest.
    handling: Option<i64>,
}

impl Check for Bank {
    const NAME: &'static str = "bank";

    fn run(self) -> Result<Verdict> {
        if self.backend.store != Store::Postgres || self.processes < 2 || self.accounts < 2 {
            bail!("the bank is on postgres, with at least two processes and two accounts");
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        let mut timer = Timer::start(Self::NAME).seed(seed);
        println!("seed {seed} (repeat with --seed {seed})");
        let layouts = self.layout.of(self.backend)?;
        let installation = Installation::assemble(self.backend)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let mut seen = Seen::default();
        for layout in layouts {
            let dir = artifacts.run(layout.word());
            let result = self.once(*layout, &installation, &dir, &mut Rng::new(seed), &mut seen);
            artifacts.done(&dir, result.is_err() || !seen.is_clean())?;
            result.with_context(|| format!("the {} layout", layout.word()))?;
        }
        timer.count("processes", self.processes).count("handling_processes", seen.handling.unwrap_or(0));
        timer.count("transfers", seen.transfers).count("moved", seen.moved);
        timer.count("kills", seen.kills).count("snapshots", seen.snapshots);
        timer.count("sum_breaks", seen.sum_breaks).count("negative", seen.negative).count("lost", seen.lost);
        timer.count("duplicated", seen.duplicated).count("wrong_balances", seen.wrong);
        Ok(timer.finish(if !seen.is_clean() {
            Outcome::Fail
        } else if seen.snapshots < 20 || seen.kills == 0 || seen.moved == 0 || seen.handling < Some(self.wanted()) {
            Outcome::Vacuous
        } else {
            Outcome::Pass
        }))
    }
}

impl Seen {
    fn is_clean(&self) -> bool {
        self.sum_breaks + self.negative == 0 && self.lost + self.duplicated + self.wrong == 0
    }
}

impl Bank {
    fn once(
        &self,
        layout: Layout,
        installation: &Installation,
        dir: &Path,
        rng: &mut Rng,
        seen: &mut Seen,
    ) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = installation.servers.prepare(dir, layout)?;
        let accounts = self.accounts.to_string();
        Proc::spawn("open", command(installation, &urls)?.args(["--open", &accounts]), dir)?.expect_success(LIMIT)?;
        let mut nodes = Vec::new();
        for at in 0..self.processes {
            nodes.push(Proc::spawn(format!("node{at}"), &mut command(installation, &urls)?, dir)?);
        }
        for node in &mut nodes {
            ready(node)?;
        }
        let mut db = super::fixture::backend::store_of(dir)?;
        let deadline = Instant::now() + LIMIT;
        let mut next_kill = Instant::now() + Duration::from_millis(700);
        let (mut transfers, kills) = (0, seen.kills);
        for round in 1.. {
            let mut teller = self.teller(installation, &urls, dir, transfers, rng)?;
            transfers += self.transfers;
            let mut sent = false;
            loop {
                self.snapshot(&mut db, seen)?;
                if Instant::now() > next_kill && !sent {
                    let at = rng.below(nodes.len() as u64) as usize;
                    nodes[at].kill9()?;
                    nodes[at] = Proc::spawn(format!("node{at}"), &mut command(installation, &urls)?, dir)?;
                    seen.kills += 1;
                    next_kill = Instant::now() + Duration::from_millis(rng.between(300, 1200));
                }
                sent = sent || teller.poll()?.is_some();
                if sent && db.number("select count(distinct n) from entry")? >= transfers {
                    break;
                }
                if Instant::now() > deadline {
                    let done = db.number("select count(distinct n) from entry")?;
                    bail!("{done} of {transfers} transfers are done after {LIMIT:?}");
                }
                thread::sleep(Duration::from_millis(10));
            }
            teller.expect_success(LIMIT)?;
            // a quick machine is done before the last of the processes has found anything, or the first was killed
            let enough = db.number(HANDLING)? >= self.wanted() && seen.kills > kills;
            if enough || round == ROUNDS {
                break;
            }
        }
        for mut node in nodes {
            // one that was started a moment ago would take the signal for the default one
            ready(&mut node)?;
            stop(node)?;
        }
        self.snapshot(&mut db, seen)?;
        let done = db.number("select count(distinct n) from entry")?;
        seen.transfers += transfers;
        seen.lost += transfers - done;
        seen.duplicated += db.number("select count(*) from entry")? - done;
        seen.moved += db.number("select count(*) from entry where moved > 0")?;
        let handling = db.number(HANDLING)?;
        seen.handling = Some(seen.handling.map_or(handling, |fewest| fewest.min(handling)));
        // what the entries say, added up
        seen.wrong += db.number(
            "select count(*) from account a where balance <> 100
                 - (select coalesce(sum(moved), 0)::bigint from entry where source = a.id)
                 + (select coalesce(sum(moved), 0)::bigint from entry where target = a.id)",
        )?;
        Ok(())
    }

    /// How many processes must have handled a transfer for the run to say anything about many of them.
    fn wanted(&self) -> i64 {
        self.processes as i64
    }

    fn teller(&self, installation: &Installation, urls: &Urls, dir: &Path, first: i64, rng: &mut Rng) -> Result<Proc> {
        let numbers = [self.transfers, first, self.accounts].map(|number| number.to_string());
        let mut send = command(installation, urls)?;
        send.args(["--send", &numbers[0], "--first", &numbers[1], "--accounts", &numbers[2]]);
        send.args(["--seed", &rng.next_u64().to_string()]);
        Proc::spawn(format!("teller{first}"), &mut send, dir)
    }

    /// One statement, so one snapshot.
    fn snapshot(&self, db: &mut Db, seen: &mut Seen) -> Result<()> {
        let sql = "select count(*) filter (where balance < 0), coalesce(sum(balance), 0)::bigint from account";
        let rows: Vec<(i64, i64)> = db.rows(sql)?;
        let (negative, sum) = rows.first().copied().context("no row")?;
        seen.snapshots += 1;
        seen.negative += u64::from(negative > 0);
        seen.sum_breaks += u64::from(sum != 100 * self.accounts);
        Ok(())
    }
}

fn command(installation: &Installation, urls: &Urls) -> Result<Command> {
    let mut command = Command::new(installation.programs.path("bank-node")?);
    command.args(["--store", &urls.store, "--transport", &urls.transport]).env("RUST_BACKTRACE", "0");
    Ok(command)
}
