//! A private PostgreSQL that can be shut down at once, started again and given a disk that is full.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::backends::Server as _;
use crate::backends::postgres::Postgres;
use crate::backends::private_server::PrivateServer;
use crate::backends::state::{How, Process, Running};
use crate::proc;

const BOOT: Duration = Duration::from_secs(60);

/// See the module.
pub struct Server {
    running: Running,
}

impl Server {
    /// The private instance that is up.
    pub fn find() -> Result<Self> {
        let running = Running::load(Postgres.name())?;
        let running = running.context("find a postgres of ours: only such a one may be hurt")?;
        ensure!(running.how == How::Private, "this needs a private postgres, and it is a {}", running.how.word());
        Ok(Self { running })
    }

    fn process(&self) -> Result<&Process> {
        self.running.processes.first().context("the server's process")
    }

    /// Immediate shutdown, as after a power failure but for the page cache; then a start with recovery.
    pub fn restart(&mut self) -> Result<()> {
        let process = self.process()?;
        ensure!(process.alive(), "the server had ended by itself");
        kill(Pid::from_raw(process.pid as i32), Signal::SIGQUIT).context("shut the server down at once")?;
        let deadline = Instant::now() + BOOT;
        while self.process()?.alive() {
            if Instant::now() > deadline {
                bail!("the server does not end");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let mut instance = PrivateServer::again(&Postgres, &self.running)?;
        Postgres.run(&Postgres.locate()?, &mut instance)?;
        self.running = instance.running().clone();
        while let Err(error) = Postgres.probe(&self.running.address) {
            if Instant::now() > deadline {
                return Err(error).context("wait for the server");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A small filesystem of the server's own.
    pub fn small_disk(&self, megabytes: u32) -> Result<Disk> {
        let parent = self.running.dir.as_ref().context("the server's directory")?;
        let dir = parent.join("small-disk");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let size = format!("size={megabytes}m");
        proc::output(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir))?;
        let disk = Disk { dir };
        let space = disk.dir.join("space");
        fs::create_dir(&space).context("create the tablespace's directory")?;
        // whoever owns the data owns this
        proc::output(Command::new("chown").arg("--reference").arg(parent).arg(&space))?;
        Ok(disk)
    }
}

/// A mounted filesystem; unmounted when dropped.
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Where a tablespace can be.
    pub fn space(&self) -> PathBuf {
        self.dir.join("space")
    }

    /// Takes all that is left of it.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast()).context("create the ballast")?;
        match std::io::copy(&mut std::io::repeat(7), &mut file) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOSPC as i32) => Ok(()),
            Err(error) => Err(error).context("fill the disk"),
            Ok(_) => bail!("the disk has no end"),
        }
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }

    fn ballast(&self) -> PathBuf {
        Path::join(&self.dir, "ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // lazily: the server may have files open on it until it is stopped
        if let Err(error) = proc::output(Command::new("umount").arg("--lazy").arg(&self.dir)) {
            eprintln!("warning: {} stays mounted: {error:#}", self.dir.display());
        }
    }
}
