//! One run's directory: its database files, its processes, its logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::backend::{BUS_SCHEMA, Backend, Servers, Store, Urls, store_of};
use super::db::Db;
use super::judge::judge;
use super::programs::{Build, Programs};
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

/// What places are made of: programs and servers.
pub struct Rig {
    /// Built.
    pub programs: Programs,
    /// Up.
    pub servers: Servers,
}

impl Rig {
    /// Builds the programs with crash points, and brings up the servers.
    pub fn assemble(backend: Backend) -> Result<Self> {
        Ok(Self { programs: Programs::build(Build::Chaos(backend.broker))?, servers: Servers::up(backend)? })
    }
}

/// See the module.
pub struct Place<'a> {
    rig: &'a Rig,
    dir: PathBuf,
    urls: Urls,
    lease: Duration,
    started: u32,
    store: Option<Db>,
    queues: Queues,
}

/// Where the messages are to be seen.
enum Queues {
    /// Beside the store.
    Here,
    /// In another database.
    There(Db),
    /// On a broker, where we do not look.
    Broker,
}

impl<'a> Place<'a> {
    /// Makes the directory, the product's tables (by the product) and the audit triggers (by us).
    pub fn create(rig: &'a Rig, dir: &Path, layout: Layout, lease: Duration) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let urls = rig.servers.prepare(dir, layout)?;
        let mut place =
            Self { rig, dir: dir.to_path_buf(), urls, lease, started: 0, store: None, queues: Queues::Here };
        let mut init = place.chaos("chaos-node")?;
        Proc::spawn("init", init.arg("--init"), dir)?.expect_success(START).context("create the tables")?;
        let mut store = store_of(dir)?;
        audit::install(&mut store)?;
        place.store = Some(store);
        let backend = rig.servers.backend();
        place.queues = match (backend.broker, layout, backend.store) {
            (Some(_), ..) => Queues::Broker,
            (None, Layout::Joined, _) => Queues::Here,
            (None, Layout::Split, Store::Sqlite) => Queues::There(Db::open(&dir.join("bus.db"))?),
            (None, Layout::Split, Store::Postgres) => Queues::There(Db::connect(&place.urls.store, BUS_SCHEMA)?),
        };
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
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// A program that was built for this.
    pub fn program(&self, name: &str) -> Result<Command> {
        Ok(Command::new(self.rig.programs.path(name)?))
    }

    fn chaos(&self, program: &str) -> Result<Command> {
        let mut command = self.program(program)?;
        command.args(["--transport", &self.urls.transport, "--store", &self.urls.store]);
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

    /// Sends very many at once, some of them to nobody; what it says about them. They go into the generator's log.
    pub fn burst(&self, first: u64, strays: u64) -> Result<Value> {
        let mut command = self.chaos("chaos-burst")?;
        command.args(["--first", &first.to_string(), "--strays", &strays.to_string()]);
        command.arg("--log").arg(self.dir.join("generator.jsonl"));
        let mut burst = Proc::spawn(format!("burst{first}"), &mut command, &self.dir)?;
        burst.expect_success(DRAIN).context("send very many at once")?;
        lines(&burst).pop().context("what became of them")
    }

    /// Starts the program that has no store and delays what it sends; returns when everything is on its way.
    pub fn later(&self) -> Result<Proc> {
        let mut later = Proc::spawn("later", &mut self.chaos("chaos-later")?, &self.dir)?;
        ready(&mut later)?;
        Ok(later)
    }

    /// What it says in the end.
    pub fn came(&self, mut later: Proc) -> Result<Value> {
        later.expect_success(5 * DRAIN).context("wait for what was delayed")?;
        lines(&later).pop().context("what came of it")
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

    /// Whether a write lock is held that nobody gives up.
    pub fn is_locked(&mut self) -> Result<bool> {
        let there = match &mut self.queues {
            Queues::There(db) => db.is_locked()?,
            Queues::Here | Queues::Broker => false,
        };
        Ok(there || self.store()?.is_locked()?)
    }

    /// How many rows still are to be worked on. What a broker has is not among them.
    pub fn backlog(&mut self) -> Result<i64> {
        let rest = self.store()?.number(
            "select (select count(*) from outbox) + (select count(*) from timer) + (select count(*) from retry)
                  + (select count(*) from parked)",
        )?;
        Ok(self.queued()?.unwrap_or(0) + rest)
    }

    /// The messages in the queues, where they can be counted.
    fn queued(&mut self) -> Result<Option<i64>> {
        let queues = match &mut self.queues {
            Queues::There(db) => db,
            Queues::Here => self.store()?,
            Queues::Broker => return Ok(None),
        };
        queues.number("select count(*) from queue").map(Some)
    }

    /// Whether there is no work left. On a broker that shows in that nothing is missing.
    pub fn at_rest(&mut self) -> Result<bool> {
        if self.backlog()? > 0 {
            return Ok(false);
        }
        Ok(!matches!(self.queues, Queues::Broker) || judge(&self.facts()?).lost == 0)
    }

    /// Waits until there is no work left, seen twice in a row.
    pub fn drained(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        // what a broker delivers once more is not to be seen from here before it is handled
        let times = if matches!(self.queues, Queues::Broker) { 5 } else { 2 };
        let mut seen = 0;
        while seen < times {
            if Instant::now() > deadline {
                return Ok(false);
            }
            seen = if self.at_rest()? { seen + 1 } else { 0 };
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

    /// Whether this process has started a handler.
    pub fn has_worked(&self, pid: u32) -> bool {
        let tap = fs::read_to_string(self.dir.join("tap.txt")).unwrap_or_default();
        let word = format!(" {pid}");
        tap.lines().any(|line| line.ends_with(&word))
    }

    /// What is left in which table, for a message to people.
    pub fn leftovers(&mut self) -> Result<String> {
        let mut parts = Vec::new();
        match self.queued()? {
            Some(queued) => parts.push(format!("queue {queued}")),
            None => parts.push(format!("missing {}", judge(&self.facts()?).lost)),
        }
        for table in ["outbox", "timer", "retry", "parked"] {
            parts.push(format!("{table} {}", self.store()?.number(&format!("select count(*) from {table}"))?));
        }
        Ok(parts.join(", "))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !matches!(self.queues, Queues::Broker) {
            return;
        }
        let removed = self
            .chaos("chaos-node")
            .and_then(|mut remove| Proc::spawn("remove", remove.arg("--remove"), &self.dir)?.expect_success(START));
        if let Err(error) = removed {
            println!("what {} has on the broker stays there: {error:#}", self.dir.display());
        }
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
