//! Child processes that are killed, stopped and continued from outside, and never outlive us.
//!
//! Each child leads a process group of its own, so that a signal reaches whatever it started, and our terminal's
//! Ctrl-C does not reach it before we do.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// The groups to kill if we are interrupted.
static ALIVE: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A running (or stopped, or ended) child.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Proc {
    /// Starts `command` with `name.out` and `name.err` in `logs` for its output (appended to, so that a restarted process
    /// continues its own log) and nothing to read.
    pub fn spawn(name: impl Into<String>, command: &mut Command, logs: &Path) -> Result<Self> {
        let name = name.into();
        fs::create_dir_all(logs).with_context(|| format!("create {}", logs.display()))?;
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?).process_group(0);
        // The lock is held over the start: a signal that comes between would miss this child.
        let mut alive = alive();
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        alive.insert(child.id() as i32);
        Ok(Self { name, child, stdout, stderr, ended: None })
    }

    /// What it was called at its start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file its stdout goes to.
    pub fn stdout(&self) -> &Path {
        &self.stdout
    }

    /// The file its stderr goes to.
    pub fn stderr(&self) -> &Path {
        &self.stderr
    }

    /// Sends a signal to its whole group. Ok(false) if it had already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<bool> {
        if self.poll()?.is_some() {
            return Ok(false);
        }
        // It has not been reaped, so the number is still its own.
        match killpg(self.group(), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("send {signal} to {}", self.name)),
        }
    }

    /// SIGKILL, and waits for the end. Ok(false) if it had already ended by itself.
    pub fn kill9(&mut self) -> Result<bool> {
        let sent = self.signal(Signal::SIGKILL)?;
        self.wait()?;
        Ok(sent)
    }

    /// SIGSTOP: it keeps its locks and connections and does nothing.
    pub fn stop(&mut self) -> Result<bool> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn cont(&mut self) -> Result<bool> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGTERM: asks for an orderly end.
    pub fn terminate(&mut self) -> Result<bool> {
        self.signal(Signal::SIGTERM)
    }

    /// Its exit status, if it has ended.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() && self.has_ended()? {
            self.reap()?;
        }
        Ok(self.ended)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, at most so long; None if it is still running then.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.poll()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end and fails, with the end of its log, unless it exits with 0 in time.
    pub fn expect_success(&mut self, limit: Duration) -> Result<()> {
        match self.wait_for(limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, tail(&self.stderr, 20)),
            None => bail!("{} did not end within {limit:?}:\n{}", self.name, tail(&self.stderr, 20)),
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Looks without reaping, so that the group's number cannot be given to anyone else before [`Self::reap`] used it.
    fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.group()), flags).with_context(|| format!("wait for {}", self.name))?;
        Ok(!matches!(status, WaitStatus::StillAlive))
    }

    fn reap(&mut self) -> Result<()> {
        let mut alive = alive();
        // What it started and left behind. ESRCH: nobody.
        let _ = killpg(self.group(), Signal::SIGKILL);
        self.ended = Some(self.child.wait().with_context(|| format!("wait for {}", self.name))?);
        alive.remove(&self.group().as_raw());
        Ok(())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // Nothing can be reported from here; what can fail is only that it has ended already.
        let _ = self.kill9();
    }
}

/// Has SIGINT, SIGTERM and SIGHUP kill every child before we end. Call once, at the start.
pub fn kill_children_on_signals() {
    let installed = ctrlc::set_handler(|| {
        let alive = alive();
        for pid in alive.iter() {
            let _ = killpg(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        std::process::exit(130);
    });
    if let Err(error) = installed {
        eprintln!("warning: children will outlive an interrupt: {error}");
    }
}

/// Adds a group that is not a [`Proc`] (a server that may outlive us) to what an interrupt kills.
pub fn kill_on_signal(pid: u32) {
    alive().insert(pid as i32);
}

/// Lets a group outlive an interrupt again.
pub fn spare_on_signal(pid: u32) {
    alive().remove(&(pid as i32));
}

/// The last lines of a file, for error messages; empty if it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn append(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| format!("open {}", path.display()))
}

fn alive() -> MutexGuard<'static, BTreeSet<i32>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command to its end and returns its stdout; its stderr is in the error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds a program on the path.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
