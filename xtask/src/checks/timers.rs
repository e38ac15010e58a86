//! `cargo xtask timers`: very many timers, most of them far away, some due at once.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::fixture::artifacts::Artifacts;
use super::fixture::audit;
use super::fixture::db::Db;
use super::fixture::environment::{lines, ready, stop};
use super::fixture::programs::{Build, Programs};
use crate::command::Check;
use crate::proc::Proc;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// Most that a process may weigh more beside all pending timers than beside none.
const FLAT_MB: f64 = 16.0;
/// How long until the timers are due that are to take effect.
const DUE_IN: u64 = 12;

/// Starts beside many pending timers, and has others become due at one moment (counts: pending, start_ms, rss_mb,
/// rss_empty_mb, due, due_per_s, early, lost, twice)
#[derive(Debug, Args)]
pub struct Timers {
    /// Timers that are due in an hour
    #[arg(long, default_value_t = 100_000)]
    pending: i64,
    /// Timers that become due at one moment
    #[arg(long, default_value_t = 20_000)]
    due: i64,
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the database in this directory
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Check for Timers {
    const NAME: &'static str = "timers";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let programs = Programs::build(Build::Release)?;
        let artifacts = Artifacts::prepare(Self::NAME, self.keep.as_deref())?;
        let dir = artifacts.run("timers");
        let start = |name: &str, file: &str, args: &[&str]| -> Result<Proc> {
            let mut command = Command::new(programs.path("timers-node")?);
            command.arg("--store").arg(format!("sqlite://{}", dir.join(file).display())).args(args);
            Proc::spawn(name, &mut command, &dir)
        };
        let pending = self.pending.to_string();
        let mut arm = start("arm", "shop.db", &["--arm", &pending])?;
        ready(&mut arm)?;
        let mut db = Db::open(&dir.join("shop.db"))?;
        until(&mut db, "select count(*) from timer", self.pending)?;
        stop(arm)?;

        let mut empty = start("empty", "empty.db", &[])?;
        probed(&mut empty)?;
        thread::sleep(Duration::from_secs(3));
        let rss_empty = rss_mb(&empty)?;
        stop(empty)?;

        let started = Instant::now();
        let mut node = start("pending", "shop.db", &[])?;
        probed(&mut node)?;
        let start_ms = (seconds_since(started) * 1000.0).round();
        thread::sleep(Duration::from_secs(3));
        let rss = rss_mb(&node)?;
        stop(node)?;

        audit::install(&mut db)?;
        let (due, due_in) = (self.due.to_string(), DUE_IN.to_string());
        let mut node = start("due", "shop.db", &["--arm", &due, "--due-in-s", &due_in, "--first-key", "1000000"])?;
        let moment = said(&mut node, "due_us")?.as_i64().context("a moment")?;
        until(&mut db, "select count(*) from timer", self.pending + self.due).context("set timers in time")?;
        until(&mut db, "select count(*) from audit where tbl = 'timer'", self.due)?;
        stop(node)?;
        let last = db.number("select max(at) from audit where tbl = 'timer'")?;
        let early = db.number("select count(*) from audit where tbl = 'timer' and at < due")?
            + db.number("select coalesce(sum(json_extract(cast(state as text), '$.early')), 0) from saga")?;
        let ticks = db.number("select coalesce(sum(json_extract(cast(state as text), '$.ticks')), 0) from saga")?;
        let rate = self.due as f64 / ((last - moment).max(1) as f64 / 1e6);
        drop(db);
        if self.keep.is_none() {
            fs::remove_dir_all(&dir).context("remove the database")?;
        }
        timer.count("pending", self.pending).count("start_ms", start_ms);
        timer.count("rss_mb", rss).count("rss_empty_mb", rss_empty);
        timer.count("due", self.due).count("due_per_s", rate.round()).count("early", early);
        timer.count("lost", (self.due - ticks).max(0)).count("twice", (ticks - self.due).max(0));
        let right = early == 0 && ticks == self.due;
        let fast = start_ms < 1000.0 && rss - rss_empty < FLAT_MB && rate >= 5000.0;
        Ok(timer.finish(if right && fast { Outcome::Pass } else { Outcome::Fail }))
    }
}

fn until(db: &mut Db, sql: &str, wanted: i64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let now = db.number(sql)?;
        if now >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{sql}: {now} instead of {wanted}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn probed(node: &mut Proc) -> Result<()> {
    said(node, "probed").map(drop)
}

/// Waits for a line with this field.
fn said(node: &mut Proc, field: &str) -> Result<serde_json::Value> {
    ready(node)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(line) = lines(node).iter().find(|line| !line[field].is_null()) {
            return Ok(line[field].clone());
        }
        if node.poll()?.is_some() || Instant::now() > deadline {
            bail!("{} has not said {field}:\n{}", node.name(), crate::proc::tail(node.stderr(), 20));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn rss_mb(node: &Proc) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).context("read the process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("find VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
    Ok((kib / 102.4).round() / 10.0)
}
