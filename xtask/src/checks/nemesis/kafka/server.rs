//! A private Kafka broker that can be killed, stopped and started again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::backends::Server as _;
use crate::backends::kafka::Kafka;
use crate::backends::private_server::PrivateServer;
use crate::backends::state::{How, Process, Running};

/// After a kill it reads its logs again.
const BOOT: Duration = Duration::from_secs(120);

/// See the module.
pub struct Server {
    running: Running,
}

impl Server {
    /// The private instance that is up.
    pub fn find() -> Result<Self> {
        let running = Running::load(Kafka.name())?.context("find a kafka of ours: only such a one may be hurt")?;
        ensure!(running.how == How::Private, "this needs a private kafka, and it is a {}", running.how.word());
        Ok(Self { running })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.running.address.trim_start_matches("kafka://")
    }

    fn process(&self) -> Result<&Process> {
        self.running.processes.first().context("the broker's process")
    }

    /// Ends it with this signal, and starts it again in the same place.
    pub fn restart(&mut self, signal: Signal) -> Result<()> {
        let process = self.process()?;
        ensure!(process.alive(), "the broker had ended by itself");
        killpg(Pid::from_raw(process.pid as i32), signal).context("signal the broker")?;
        let deadline = Instant::now() + BOOT;
        while self.process()?.alive() {
            if Instant::now() > deadline {
                bail!("the broker does not end");
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut instance = PrivateServer::again(&Kafka, &self.running)?;
        Kafka.run(&Kafka.locate()?, &mut instance)?;
        self.running = instance.running().clone();
        while let Err(error) = Kafka.probe(&self.running.address) {
            if Instant::now() > deadline {
                return Err(error).context("wait for the broker");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
