//! What is running and who started it, kept in a file so that a later call can stop it, and only it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::compose;
use crate::{paths, proc};

/// How a server came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its address was in the environment; it is not ours to stop.
    Environment,
    /// A container of docker-compose.yml.
    Compose,
    /// A process of ours with a data directory of its own.
    Private,
}

impl How {
    /// For the tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Compose => "docker compose",
            Self::Private => "private instance",
        }
    }
}

/// A server that we started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// The backend's name.
    pub server: String,
    /// How it was started.
    pub how: How,
    /// Where it listens.
    pub address: String,
    /// Its data, removed with it; None for a container.
    pub dir: Option<PathBuf>,
    /// Its processes, in the order they are to be stopped.
    pub processes: Vec<Process>,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, and its group's.
    pub pid: u32,
    /// When it was started, in clock ticks since boot.
    pub ticks: u64,
}

impl Process {
    /// The process with this id now.
    pub fn of(pid: u32) -> Result<Self> {
        let (_, ticks) = stat(pid).with_context(|| format!("read the start time of process {pid}"))?;
        Ok(Self { pid, ticks })
    }

    /// Whether it still runs. A zombie does not: it only waits for its parent to look.
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, ticks)| state != 'Z' && ticks == self.ticks)
    }

    fn stop(&self, limit: Duration) {
        if !self.alive() {
            return;
        }
        let group = Pid::from_raw(self.pid as i32);
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + limit;
        while self.alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // Whatever of the group is left. The leader's number is not given away while the group has members.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

impl Running {
    /// What a former call started, if it left a file.
    pub fn load(server: &str) -> Result<Option<Self>> {
        let file = file(server);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("read {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Writes the file, by rename: a torn one would leave processes behind.
    pub fn save(&self) -> Result<()> {
        let file = file(&self.server);
        let draft = file.with_extension("json.new");
        fs::create_dir_all(paths::servers()).context("create the servers' directory")?;
        fs::write(&draft, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, &file).with_context(|| format!("write {}", file.display()))
    }

    /// Whether all of it still runs, as far as processes tell.
    pub fn alive(&self) -> bool {
        self.how == How::Compose || self.processes.iter().all(Process::alive)
    }

    /// Stops it, removes its data and forgets it.
    pub fn stop(&self) -> Result<()> {
        if self.how == How::Compose {
            compose::down(&self.server)?;
        }
        // somebody may have started it anew meanwhile
        let current = Self::load(&self.server)?.filter(|current| current.dir == self.dir);
        for process in current.iter().chain([self]).flat_map(|running| &running.processes) {
            process.stop(Duration::from_secs(20));
            proc::spare_on_signal(process.pid);
        }
        if let Some(dir) = &self.dir {
            remove(dir)?;
        }
        match fs::remove_file(file(&self.server)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", file(&self.server).display()))
            }
            _ => Ok(()),
        }
    }
}

/// Removes a directory that may not be there.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn file(server: &str) -> PathBuf {
    paths::servers().join(format!("{server}.json"))
}

/// State letter and start time of a process. The name before them may hold anything, so count from its last parenthesis.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let ours = Process::of(std::process::id()).unwrap();
        assert!(ours.alive());
        assert!(!Process { ticks: ours.ticks + 1, ..ours }.alive(), "a later process with the same number");
    }
}
