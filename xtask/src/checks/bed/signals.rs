//! Seeing from outside that a signal did it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// What is to happen to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT when another process has taken over.
    Stop,
}

impl Action {
    /// As the programs call it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Stop => "stop",
        }
    }
}

/// Whether this child is stopped by SIGSTOP right now. Does not reap it.
pub fn is_stopped(pid: u32) -> Result<bool> {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let id = Id::Pid(Pid::from_raw(i32::try_from(pid).context("a process id")?));
    match waitid(id, flags).context("ask whether a child is stopped")? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(true),
        _ => Ok(false),
    }
}

/// Whether it ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}
