//! One run's directory: its database files, its processes, its logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::db::Db;
use super::programs::Programs;
use super::{audit, facts::Facts};
use crate::proc::{Proc, tail};

/// Where the messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Layout {
    /// In the store's own file: queue rows are gates.
    Joined,
    /// In another file: inbox, outbox, confirm, settle.
    Split,
}

impl Layout {
    /// As the command line calls it.
    pub fn word(self) -> &'static str {
        match self {
            Layout::Joined => "joined",
            Layout::Split => "split",
        }
    }
}

/// How long a process may take from its start until it receives.
const START: Duration = Duration::from_secs(30);
/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(40);
/// How long the work may take once nothing disturbs it.
pub const DRAIN: Duration = Duration::from_secs(90);

/// See the module.
pub struct Place<'a> {
    programs: &'a Programs,
    dir: PathBuf,
    layout: Layout,
    lease: Duration,
    started: u32,
    store: Option<Db>,
    bus: Option<Db>,
}

impl<'a> Place<'a> {
    /// Makes the directory, the product's tables (by the product) and the audit triggers (by us).
    pub fn create(programs: &'a Programs, dir: &Path, layout: Layout, lease: Duration) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut place = Self { programs, dir: dir.to_path_buf(), layout, lease, started: 0, store: None, bus: None };
        let mut init = place.chaos("chaos-node")?;
        Proc::spawn("init", init.arg("--init"), dir)?.expect_success(START).context("create the tables")?;
        let mut store = Db::open(&dir.join("shop.db"))?;
        audit::install(&mut store)?;
        place.store = Some(store);
        if layout == Layout::Split {
            place.bus = Some(Db::open(&dir.join("bus.db"))?);
        }
        Ok(place)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lease of its processes.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The URLs of transport and store.
    pub fn urls(&self) -> [String; 2] {
        let url = |name: &str| format!("sqlite://{}", self.dir.join(name).display());
        match self.layout {
            Layout::Joined => [url("shop.db"), url("shop.db")],
            Layout::Split => [url("bus.db"), url("shop.db")],
        }
    }

    fn chaos(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.programs.path(program)?);
        let [transport, store] = self.urls();
        command.args(["--transport", &transport, "--store", &store]);
        command.args(["--lease-ms", &self.lease.as_millis().to_string()]);
        command.env("CHAOS_TAP", self.dir.join("tap.txt"));
        // an error is to be read, not its way
        command.env("RUST_BACKTRACE", "0");
        command.env_remove("SAGABUS_CRASH").env_remove("SAGABUS_CRASH_LOG");
        Ok(command)
    }

    /// Starts the generator. `messages` 0: until it is asked to end.
    pub fn generator(&self, messages: u64, pace_ms: u64, keys: u64, senders: u64) -> Result<Proc> {
        let mut command = self.chaos("chaos-gen")?;
        command.args(["--messages", &messages.to_string(), "--pace-ms", &pace_ms.to_string()]);
        command
            .args(["--keys", &keys.to_string(), "--senders", &senders.to_string()])
            .arg("--log")
            .arg(self.dir.join("generator.jsonl"));
        let mut generator = Proc::spawn("generator", &mut command, &self.dir)?;
        ready(&mut generator)?;
        Ok(generator)
    }

    /// Starts a node without waiting for it. A crash is `point:nth:action`.
    pub fn launch(&mut self, crash: Option<&str>) -> Result<Proc> {
        self.started += 1;
        let mut command = self.chaos("chaos-node")?;
        if let Some(crash) = crash {
            command.env("SAGABUS_CRASH", crash).env("SAGABUS_CRASH_LOG", self.crash_log());
        }
        Proc::spawn(format!("node{}", self.started), &mut command, &self.dir)
    }

    /// Starts a node under a name, with further arguments, without waiting for it.
    pub fn racer(&self, name: &str, args: &[&str]) -> Result<Proc> {
        Proc::spawn(name, self.chaos("chaos-node")?.args(args), &self.dir)
    }

    /// Starts a node and waits until it receives.
    pub fn node(&mut self) -> Result<Proc> {
        let mut node = self.launch(None)?;
        ready(&mut node)?;
        Ok(node)
    }

    /// Where the product writes down that it reached a point.
    pub fn crash_log(&self) -> PathBuf {
        self.dir.join("crash.txt")
    }

    /// The points that were reached so far.
    pub fn reached(&self) -> Vec<String> {
        fs::read_to_string(self.crash_log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The store's file.
    pub fn store(&mut self) -> Result<&mut Db> {
        self.store.as_mut().context("the store is not open")
    }

    /// The file that holds the queues.
    pub fn queues(&mut self) -> Result<&mut Db> {
        self.bus.as_mut().or(self.store.as_mut()).context("the queues are not open")
    }

    /// Whether a write lock is held that nobody gives up.
    pub fn is_locked(&mut self) -> Result<bool> {
        Ok(self.store()?.is_locked()? || self.queues()?.is_locked()?)
    }

    /// How many rows still are to be worked on.
    pub fn backlog(&mut self) -> Result<i64> {
        let queued = self.queues()?.number("select count(*) from queue")?;
        let rest = self.store()?.number(
            "select (select count(*) from outbox) + (select count(*) from timer) + (select count(*) from retry)
                  + (select count(*) from parked)",
        )?;
        Ok(queued + rest)
    }

    /// Waits until there is no work left, seen twice in a row.
    pub fn drained(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        while seen < 2 {
            if Instant::now() > deadline {
                return Ok(false);
            }
            seen = if self.backlog()? == 0 { seen + 1 } else { 0 };
            thread::sleep(Duration::from_millis(if seen > 0 { 120 } else { 20 }));
        }
        Ok(true)
    }

    /// What is to be seen from outside, now.
    pub fn facts(&mut self) -> Result<Facts> {
        let log = self.dir.join("generator.jsonl");
        let tap = self.dir.join("tap.txt");
        Facts::read(self.store()?, &log, &tap)
    }

    /// What is left in which table, for a message to people.
    pub fn leftovers(&mut self) -> Result<String> {
        let mut parts = Vec::new();
        let queued = self.queues()?.number("select count(*) from queue")?;
        parts.push(format!("queue {queued}"));
        for table in ["outbox", "timer", "retry", "parked"] {
            parts.push(format!("{table} {}", self.store()?.number(&format!("select count(*) from {table}"))?));
        }
        Ok(parts.join(", "))
    }
}

/// Waits for the line that says it receives.
pub fn ready(process: &mut Proc) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        if lines(process).iter().any(|line| line["ready"] == true) {
            return Ok(());
        }
        if let Some(status) = process.poll()? {
            bail!("{} ended with {status} at its start:\n{}", process.name(), tail(process.stderr(), 20));
        }
        if Instant::now() > deadline {
            bail!("{} is not ready after {START:?}:\n{}", process.name(), tail(process.stderr(), 20));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a program said so far.
pub fn lines(process: &Proc) -> Vec<Value> {
    let text = fs::read_to_string(process.stdout()).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Asks for an orderly end, waits for it, and returns the last thing it said.
pub fn stop(mut process: Proc) -> Result<Value> {
    process.terminate()?;
    process.expect_success(STOP).context("stop in good order")?;
    Ok(lines(&process).pop().unwrap_or_default())
}
