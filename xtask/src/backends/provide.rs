//! Brings a server up by the first way that works: the environment, docker compose, a private instance.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::private_server::PrivateServer;
use super::state::{How, Running};
use super::{Server, apt, compose};
use crate::{paths, proc};

/// From the start of a process to an answer. RabbitMQ and Kafka take up to 15 s on two busy cores.
const BOOT: Duration = Duration::from_secs(120);

/// What fails sooner is tried again; later it was not for want of a port.
const QUICK: Duration = Duration::from_secs(30);

/// A server that answers.
#[derive(Debug)]
pub struct Provided {
    /// Where it listens.
    pub address: String,
    /// By which way.
    pub how: How,
    /// What it says it is.
    pub identity: String,
    /// Set if this call started it: the caller stops it, or leaves it on record with [`Provided::leave`].
    started: Option<Running>,
}

impl Provided {
    /// Whether this call started it.
    pub fn is_new(&self) -> bool {
        self.started.is_some()
    }

    /// Leaves it running when we end; `servers down` stops it.
    pub fn leave(mut self) {
        for process in self.started.take().iter().flat_map(|running| &running.processes) {
            proc::spare_on_signal(process.pid);
        }
    }

    /// Stops it if this call started it.
    pub fn stop(mut self) -> Result<()> {
        self.started.take().map_or(Ok(()), |running| running.stop())
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        if let Some(running) = self.started.take()
            && let Err(error) = running.stop()
        {
            eprintln!("warning: stop {}: {error:#}", running.server);
        }
    }
}

/// Brings it up; the error says why each way was not open.
pub fn provide(server: &dyn Server, install: bool) -> Result<Provided> {
    let name = server.name();
    if let Some(address) = env::var(server.variable()).ok().filter(|address| !address.is_empty()) {
        // Named on purpose: falling back to another server would test something else than was asked for.
        let identity = server.probe(&address).with_context(|| format!("reach {name} at {}", server.variable()))?;
        return Ok(Provided { address, how: How::Environment, identity, started: None });
    }
    let _lock = lock(name)?;
    if let Some(running) = Running::load(name)? {
        match server.probe(&running.address) {
            Ok(identity) if running.alive() => {
                return Ok(Provided { address: running.address, how: running.how, identity, started: None });
            }
            _ => running.stop().with_context(|| format!("clear away a {name} that no longer answers"))?,
        }
    }
    let container = compose::available().and_then(|()| container(server));
    container.or_else(|no_container| {
        private(server, install)
            .with_context(|| format!("no {}, {no_container:#}, no private instance", server.variable()))
    })
}

fn container(server: &dyn Server) -> Result<Provided> {
    let address = server.address(server.port());
    let running = Running {
        server: server.name().to_owned(),
        how: How::Compose,
        address: address.clone(),
        dir: None,
        processes: Vec::new(),
    };
    running.save()?;
    let up = compose::up(server.name()).and_then(|()| server.probe(&address));
    match up {
        Ok(identity) => Ok(Provided { address, how: How::Compose, identity, started: Some(running) }),
        Err(error) => {
            running.stop()?;
            Err(error)
        }
    }
}

fn private(server: &dyn Server, install: bool) -> Result<Provided> {
    let installed = match server.locate() {
        Ok(installed) => installed,
        Err(missing) if !install => bail!("{missing:#} (--install would fetch it)"),
        Err(_) => {
            apt::install(server.packages())?;
            server.fetch()?;
            server.locate()?
        }
    };
    let mut attempts = 1;
    loop {
        let started = Instant::now();
        match start(server, &installed) {
            // Another one, started in the same moment from another clone, may have taken one of the ports meanwhile.
            Err(error) if attempts < 3 && started.elapsed() < QUICK => {
                eprintln!("{} did not start, trying again: {error:#}", server.name());
                attempts += 1;
            }
            result => return result,
        }
    }
}

fn start(server: &dyn Server, installed: &Path) -> Result<Provided> {
    let mut instance = PrivateServer::prepare(server)?;
    // The log of the last instance would be taken for this one's.
    let _ = fs::remove_file(instance.log());
    let ready = server.start(installed.to_path_buf(), &mut instance).and_then(|()| await_answer(server, &instance));
    // Asked again once it is complete: before, PostgreSQL has no database to tell its version in.
    match ready.and_then(|()| server.confirm(&instance)).and_then(|()| server.probe(&instance.address)) {
        Ok(identity) => {
            let started = Some(instance.running().clone());
            Ok(Provided { address: instance.address.clone(), how: How::Private, identity, started })
        }
        Err(error) => {
            let log = proc::tail(&instance.log(), 15);
            instance.running().stop()?;
            Err(error).with_context(|| format!("start {}; its log ends:\n{log}\n", server.name()))
        }
    }
}

fn await_answer(server: &dyn Server, instance: &PrivateServer) -> Result<()> {
    let deadline = Instant::now() + BOOT;
    loop {
        if !instance.running().alive() {
            bail!("the process ended before it answered");
        }
        match server.probe(&instance.address) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no answer within {BOOT:?}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Two calls at once would start two servers and record one.
fn lock(name: &str) -> Result<File> {
    fs::create_dir_all(paths::servers()).context("create the servers' directory")?;
    let file = File::create(paths::servers().join(format!("{name}.lock"))).context("create the lock file")?;
    file.lock().context("lock the servers' directory")?;
    Ok(file)
}
