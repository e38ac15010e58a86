//! Processes at work, and what a nemesis may do to them.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sagabus_testkit::proxy::{Proxy, amqp::Settlements};

use super::broker::Broker;
use super::kafka::Cluster;
use super::proxied_broker::ProxiedBroker;
use super::server::Server;
use crate::checks::fixture::backend::{self, Store};
use crate::checks::fixture::db::Db;
use crate::checks::fixture::environment::{self, Environment, Installation, Layout};
use crate::checks::fixture::observed::Observed;
use crate::proc::{Proc, tail};

/// Longer than a pause of a busy machine, short enough that a frozen process is given up soon.
const LEASE: Duration = Duration::from_secs(1);
/// How long it may take until something is committed, with a server that comes back in between.
const PATIENCE: Duration = Duration::from_secs(90);
/// Rows that are to be written between two strikes.
const ENOUGH: i64 = 200;
const DRAIN: Duration = Duration::from_secs(180);

/// What is to be seen when everything has come to its end.
#[derive(Default)]
pub struct Ended {
    /// From outside.
    pub observed: Observed,
    /// Processes that ended by themselves and were started again.
    pub revived: u64,
    /// Kafka: how many records lay below committed offsets when that was looked at.
    pub offsets_checked: u64,
    /// Kafka: those of them that were not finished.
    pub passed: Vec<String>,
}

/// See the module.
pub struct ClusterUnderTest<'a> {
    environment: Environment<'a>,
    broker: Option<Broker>,
    kafka: Option<Cluster>,
    server: Option<Server>,
    proxied: Option<&'a ProxiedBroker>,
    generator: Proc,
    nodes: Vec<Proc>,
    /// Those of them that a nemesis has stopped.
    frozen: BTreeSet<usize>,
    /// Processes that ended by themselves and were started again.
    pub revived: u64,
}

impl<'a> ClusterUnderTest<'a> {
    /// Starts the generator and the nodes. What they say to a broker goes through the proxy.
    pub fn start(
        installation: &'a Installation,
        layout: Layout,
        proxied: Option<&'a ProxiedBroker>,
        dir: &Path,
        nodes: usize,
        pace_ms: u64,
    ) -> Result<Self> {
        let mut environment = Environment::create(installation, dir, layout, LEASE)?;
        let generator = environment.generator(0, pace_ms, 40, 6)?;
        let nodes = (0..nodes).map(|_| environment.node()).collect::<Result<Vec<_>>>()?;
        let backend = installation.servers.backend();
        let broker = match backend.broker {
            Some(backend::Broker::RabbitMq) => Some(Broker::find()?),
            _ => None,
        };
        let kafka = match backend.broker {
            Some(backend::Broker::Kafka) => Some(Cluster::find(&environment)?),
            _ => None,
        };
        let server = match (backend.broker, backend.store) {
            (None, Store::Postgres) => Some(Server::find()?),
            _ => None,
        };
        let frozen = BTreeSet::new();
        Ok(Self { environment, broker, kafka, server, proxied, generator, nodes, frozen, revived: 0 })
    }

    /// The Kafka cluster, and where things lie.
    pub fn kafka(&mut self) -> Result<(&mut Cluster, &mut Environment<'a>)> {
        Ok((self.kafka.as_mut().context("this run has no kafka")?, &mut self.environment))
    }

    /// How many processes there are, running or stopped.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// One more process, without waiting for it.
    pub fn join(&mut self) -> Result<()> {
        self.nodes.push(self.environment.launch(None)?);
        Ok(())
    }

    /// Asks one of them to end, or kills it. One that was asked is returned: it has not ended yet.
    pub fn leave(&mut self, at: usize, kill: bool) -> Result<(u32, Option<Proc>)> {
        let mut node = self.nodes.remove(at);
        let pid = node.pid();
        if kill {
            node.kill9()?;
            return Ok((pid, None));
        }
        environment::ready(&mut node)?;
        node.terminate()?;
        Ok((pid, Some(node)))
    }

    /// Stops one of them with SIGSTOP.
    pub fn freeze(&mut self, at: usize) -> Result<()> {
        self.nodes[at].stop()?;
        self.frozen.insert(at);
        Ok(())
    }

    /// Has it go on.
    pub fn thaw(&mut self, at: usize) -> Result<()> {
        self.frozen.remove(&at);
        self.nodes[at].cont().map(drop)
    }

    /// Whether this process has started a handler.
    pub fn has_worked(&self, pid: u32) -> bool {
        self.environment.has_worked(pid)
    }

    /// Holds everything for a moment, and looks whether a committed offset has passed unfinished work.
    pub fn audit_offsets(&mut self) -> Result<()> {
        let Some(kafka) = &mut self.kafka else { return Ok(()) };
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| !self.frozen.contains(at)).collect();
        for at in &running {
            self.nodes[*at].stop()?;
        }
        let seen = kafka.audit(&mut self.environment);
        for at in &running {
            self.nodes[*at].cont()?;
        }
        seen
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
        self.environment.store()
    }

    /// The broker behind its proxy.
    pub fn proxied(&self) -> Result<&'a ProxiedBroker> {
        self.proxied.context("this run has no broker")
    }

    /// The proxy before the broker.
    pub fn proxy(&self) -> Result<&'a Proxy<Settlements>> {
        Ok(&self.proxied()?.proxy)
    }

    /// What something is called on the broker.
    pub fn name(&self, name: &str) -> Result<String> {
        let url = &self.environment.urls().transport;
        let prefix = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("prefix="));
        Ok(format!("{}{name}", prefix.context("the prefix on the broker")?))
    }

    /// A thousand commands at once, so many of them to nobody. An error unless exactly those are blamed.
    pub fn burst(&mut self, round: u64, strays: u64) -> Result<()> {
        // far away from the generator's own numbers
        let said = self.environment.burst(1_000_000_000 + round * 10_000, strays)?;
        if said["blamed"] != strays || said["wrong"].as_array().is_none_or(|wrong| !wrong.is_empty()) {
            bail!("others are blamed than those that went to nobody: {said}");
        }
        Ok(())
    }

    /// Sends with delays and has the nemesis strike meanwhile. An error unless everything comes, and nothing early.
    pub fn later(&mut self, strike: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let later = self.environment.later()?;
        strike(self)?;
        let said = self.environment.came(later)?;
        if said["lost"] != 0 || said["early"] != 0 || said["failed"].as_u64().is_none_or(|failed| failed == 0) {
            bail!("what was delayed did not come as it should: {said}");
        }
        println!("delayed on the broker: {said}");
        Ok(())
    }

    /// Waits until enough was committed from now on.
    pub fn work_goes_on(&mut self) -> Result<()> {
        let goal = self.progress()? + ENOUGH;
        let deadline = Instant::now() + PATIENCE;
        while self.progress()? < goal {
            self.alive()?;
            if Instant::now() > deadline {
                bail!("too little was committed in {PATIENCE:?}: {}", self.environment.leftovers()?);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<i64> {
        let sql = "select coalesce((select max(seq) from audit), 0) + coalesce((select max(id) from effect), 0)";
        self.environment.store()?.number(sql)
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
                self.nodes[at] = self.environment.launch(None)?;
                self.revived += 1;
                any = true;
            }
        }
        Ok(any)
    }

    /// Ends all processes, the first one by SIGKILL.
    pub fn stop_all(&mut self) -> Result<usize> {
        let count = self.nodes.len();
        for (at, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            match at {
                0 => drop(node.kill9()?),
                _ => {
                    environment::ready(&mut node)?;
                    environment::stop(node)?;
                }
            }
        }
        Ok(count)
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
                bail!("the queues do not get empty: {}", self.environment.leftovers()?);
            }
            let idle = self.environment.backlog()? == 0 && self.broker()?.waiting_in(&prefix)? == 0;
            empty = if idle { empty + 1 } else { 0 };
        }
        Ok(())
    }

    /// Goes on.
    pub fn resume(&mut self) -> Result<()> {
        self.generator.cont().map(drop)
    }

    /// Lets everything come to its end, and says what is to be seen from outside.
    pub fn end(mut self) -> Result<Ended> {
        self.work_goes_on()?;
        self.alive()?;
        self.audit_offsets()?;
        environment::stop(self.generator).context("the generator")?;
        if !self.environment.drained(DRAIN)? {
            bail!("the work does not end: {}", self.environment.leftovers()?);
        }
        if let Some(kafka) = &mut self.kafka {
            kafka.read_to_the_end(DRAIN)?;
        }
        for mut node in self.nodes {
            // one that was started a moment ago would take the signal for the default one
            environment::ready(&mut node)?;
            environment::stop(node)?;
        }
        let mut ended = Ended { observed: self.environment.observed()?, revived: self.revived, ..Ended::default() };
        if let Some(mut kafka) = self.kafka {
            kafka.audit(&mut self.environment)?;
            ended.observed.moved = kafka.moved;
            (ended.offsets_checked, ended.passed) = (kafka.checked, kafka.passed);
        }
        Ok(ended)
    }
}
