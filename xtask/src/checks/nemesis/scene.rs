//! Processes at work, and what a nemesis may do to them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::broker::Broker;
use super::proxy::Proxy;
use super::server::Server;
use crate::checks::bed::backend::Store;
use crate::checks::bed::db::Db;
use crate::checks::bed::facts::Facts;
use crate::checks::bed::place::{self, Layout, Place, Rig};
use crate::proc::{Proc, tail};

/// Longer than a pause of a busy machine, short enough that a frozen process is given up soon.
const LEASE: Duration = Duration::from_secs(1);
/// How long it may take until something is committed, with a server that comes back in between.
const PATIENCE: Duration = Duration::from_secs(90);
/// Rows that are to be written between two strikes.
const ENOUGH: i64 = 200;
const DRAIN: Duration = Duration::from_secs(180);

/// What stands before a broker.
#[derive(Clone, Copy)]
pub struct Front<'a> {
    /// What the processes talk to.
    pub proxy: &'a Proxy,
    /// The broker's own address.
    pub direct: &'a str,
}

/// See the module.
pub struct Scene<'a> {
    place: Place<'a>,
    broker: Option<Broker>,
    server: Option<Server>,
    front: Option<Front<'a>>,
    generator: Proc,
    nodes: Vec<Proc>,
    /// Processes that ended by themselves and were started again.
    pub revived: u64,
}

impl<'a> Scene<'a> {
    /// Starts the generator and the nodes. What they say to a broker goes through the proxy.
    pub fn start(
        rig: &'a Rig,
        layout: Layout,
        front: Option<Front<'a>>,
        dir: &Path,
        nodes: usize,
        pace_ms: u64,
    ) -> Result<Self> {
        let mut place = Place::create(rig, dir, layout, LEASE)?;
        let generator = place.generator(0, pace_ms, 40, 6)?;
        let nodes = (0..nodes).map(|_| place.node()).collect::<Result<Vec<_>>>()?;
        let backend = rig.servers.backend();
        let broker = if backend.broker.is_some() { Some(Broker::find()?) } else { None };
        let server = match (backend.broker, backend.store) {
            (None, Store::Postgres) => Some(Server::find()?),
            _ => None,
        };
        Ok(Self { place, broker, server, front, generator, nodes, revived: 0 })
    }

    /// The broker itself.
    pub fn broker(&mut self) -> Result<&mut Broker> {
        self.broker.as_mut().context("this run has no broker")
    }

    /// The database server.
    pub fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("this run has no server")
    }

    /// The store's database.
    pub fn store(&mut self) -> Result<&mut Db> {
        self.place.store()
    }

    /// What stands before the broker.
    pub fn proxy(&self) -> Result<&Proxy> {
        Ok(self.front.context("this run has no broker")?.proxy)
    }

    /// Its address without the proxy.
    pub fn direct(&self) -> Result<&str> {
        Ok(self.front.context("this run has no broker")?.direct)
    }

    /// What something is called on the broker.
    pub fn name(&self, name: &str) -> Result<String> {
        let url = &self.place.urls().transport;
        let prefix = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("prefix="));
        Ok(format!("{}{name}", prefix.context("the prefix on the broker")?))
    }

    /// A thousand commands at once, so many of them to nobody. An error unless exactly those are blamed.
    pub fn burst(&mut self, round: u64, strays: u64) -> Result<()> {
        // far away from the generator's own numbers
        let said = self.place.burst(1_000_000_000 + round * 10_000, strays)?;
        if said["blamed"] != strays || said["wrong"].as_array().is_none_or(|wrong| !wrong.is_empty()) {
            bail!("others are blamed than those that went to nobody: {said}");
        }
        Ok(())
    }

    /// Waits until enough was committed from now on.
    pub fn work_goes_on(&mut self) -> Result<()> {
        let goal = self.progress()? + ENOUGH;
        let deadline = Instant::now() + PATIENCE;
        while self.progress()? < goal {
            self.alive()?;
            if Instant::now() > deadline {
                bail!("too little was committed in {PATIENCE:?}: {}", self.place.leftovers()?);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<i64> {
        let sql = "select coalesce((select max(seq) from audit), 0) + coalesce((select max(id) from effect), 0)";
        self.place.store()?.number(sql)
    }

    /// A nemesis of a server is no excuse for a process to end.
    fn alive(&mut self) -> Result<()> {
        for process in self.nodes.iter_mut().chain([&mut self.generator]) {
            if let Some(status) = process.poll()? {
                bail!("{} ended with {status}:\n{}", process.name(), tail(process.stderr(), 20));
            }
        }
        Ok(())
    }

    /// Starts those again that ended; whether there were any.
    pub fn revive(&mut self) -> Result<bool> {
        let mut any = false;
        for at in 0..self.nodes.len() {
            if self.nodes[at].poll()?.is_some() {
                self.nodes[at] = self.place.launch(None)?;
                self.revived += 1;
                any = true;
            }
        }
        Ok(any)
    }

    /// Nobody sends any more, and the broker's queues are empty. What waits for a message that was not sent yet goes on
    /// waiting.
    pub fn pause(&mut self) -> Result<()> {
        self.generator.stop()?;
        let prefix = self.name("")?;
        let deadline = Instant::now() + DRAIN;
        let mut empty = 0;
        while empty < 2 {
            if Instant::now() > deadline {
                bail!("the queues do not get empty: {}", self.place.leftovers()?);
            }
            let idle = self.place.backlog()? == 0 && self.broker()?.waiting_in(&prefix)? == 0;
            empty = if idle { empty + 1 } else { 0 };
        }
        Ok(())
    }

    /// Goes on.
    pub fn resume(&mut self) -> Result<()> {
        self.generator.cont().map(drop)
    }

    /// Lets everything come to its end, and says what is to be seen from outside.
    pub fn end(mut self) -> Result<(Facts, u64)> {
        self.work_goes_on()?;
        self.alive()?;
        place::stop(self.generator).context("the generator")?;
        if !self.place.drained(DRAIN)? {
            bail!("the work does not end: {}", self.place.leftovers()?);
        }
        for mut node in self.nodes {
            // one that was started a moment ago would take the signal for the default one
            place::ready(&mut node)?;
            place::stop(node)?;
        }
        Ok((self.place.facts()?, self.revived))
    }
}
