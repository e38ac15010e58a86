//! A private RabbitMQ that can be killed, stopped, started again and told what to do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::backends::Server;
use crate::backends::rabbitmq::{RabbitMq, SERVER};
use crate::backends::state::{How, Process, Running};
use crate::{paths, proc};

/// The wrapper on the path insists on another user.
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const BOOT: Duration = Duration::from_secs(120);

/// See the module.
pub struct Broker {
    running: Running,
    dir: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Broker {
    /// The private instance that is up.
    pub fn find() -> Result<Self> {
        let running =
            Running::load(RabbitMq.name())?.context("find a rabbitmq of ours: only such a one may be hurt")?;
        ensure!(running.how == How::Private, "this needs a private rabbitmq, and it is a {}", running.how.word());
        let dir = running.dir.clone().context("the broker's directory")?;
        let text = fs::read_to_string(dir.join("environment.json"));
        let text = text.context("read rabbitmq's environment (`cargo xtask servers down`, if an older one runs)")?;
        let environment = serde_json::from_str(&text).context("read rabbitmq's environment")?;
        Ok(Self { running, dir, environment })
    }

    fn process(&self) -> Result<&Process> {
        // what was started later is first: the port mapper is the other one
        self.running.processes.first().context("the broker's process")
    }

    /// To the whole group: the server is started by a script.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process()?;
        ensure!(process.alive(), "the broker had ended by itself");
        killpg(Pid::from_raw(process.pid as i32), signal).context("signal the broker")
    }

    /// Waits until its process is gone.
    pub fn gone(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.process()?.alive() {
            if Instant::now() > deadline {
                bail!("the broker does not end");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts it again in the same place, and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let log = paths::servers().join(format!("{}.log", self.running.server));
        let log = File::options().create(true).append(true).open(log).context("open the broker's log")?;
        let errors = log.try_clone().context("open the broker's log")?;
        // without what we have inherited ourselves, a lock of whoever called us for example: it outlives us
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$0\"", SERVER]);
        command.current_dir(&self.dir).envs(&self.environment).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.process_group(0).spawn().context("start the broker again")?;
        proc::kill_on_signal(child.id());
        if let Some(first) = self.running.processes.first_mut() {
            *first = Process::of(child.id())?;
        }
        self.running.save()?;
        self.answers()
    }

    /// Waits until it answers.
    pub fn answers(&self) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        while let Err(error) = RabbitMq.probe(&self.running.address) {
            if Instant::now() > deadline {
                return Err(error).context("wait for the broker");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Runs `rabbitmqctl`.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let node = self.environment.get("RABBITMQ_NODENAME").context("the broker's node name")?;
        proc::output(
            Command::new(CTL).current_dir(&self.dir).envs(&self.environment).args(["--quiet", "-n", node]).args(args),
        )
    }

    /// Has it run an Erlang expression.
    pub fn eval(&self, expression: &str) -> Result<String> {
        self.ctl(&["eval", expression])
    }

    /// How many messages are in the endpoints' queues with this prefix.
    pub fn waiting_in(&self, prefix: &str) -> Result<u64> {
        let list = self.ctl(&["list_queues", "name", "messages"])?;
        let queues = list.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once('\t'));
        // the list of endpoints is one message, always
        let counts = queues.filter(|(name, _)| *name != "sagabus.endpoints");
        Ok(counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum())
    }

    /// How many messages wait in a queue; none if it does not exist.
    pub fn waiting(&self, queue: &str) -> Result<u64> {
        let list = self.ctl(&["list_queues", "name", "messages"])?;
        let count = list.lines().find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t')?.trim().parse().ok());
        Ok(count.unwrap_or(0))
    }
}
