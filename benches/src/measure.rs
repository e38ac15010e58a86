//! CPU and memory of this process, CPU of a broker beside it, and quantiles.

use nix::sys::resource::{UsageWho, getrusage};
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// CPU time of all threads so far, user and system.
pub(crate) fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() as u64) * 1_000_000 + t.tv_usec() as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Resident memory now, in MiB; 0 where there is no /proc.
pub(crate) fn rss_mb() -> f64 {
    status("VmRSS:")
}

/// The most that was ever resident, in MiB.
pub(crate) fn peak_mb() -> f64 {
    status("VmHWM:")
}

fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let kb: f64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    round(kb / 1024.0, 10.0)
}

/// A stretch of time with its CPU.
pub(crate) struct Span {
    wall: Instant,
    cpu: Duration,
    broker: Option<f64>,
}

impl Span {
    pub(crate) fn start() -> Self {
        Self { broker: broker_cpu(), wall: Instant::now(), cpu: cpu() }
    }

    /// Microseconds of the broker's CPU for each of `n`, if there is one on this machine.
    pub(crate) fn broker_us_per(&self, n: u64) -> Option<f64> {
        Some((broker_cpu()? - self.broker?) / n.max(1) as f64)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }

    /// Microseconds of CPU for each of `n`.
    pub(crate) fn cpu_us_per(&self, n: u64) -> f64 {
        (cpu().saturating_sub(self.cpu)).as_secs_f64() * 1e6 / n.max(1) as f64
    }
}

static BROKER: OnceLock<u32> = OnceLock::new();

/// From now on every [`Span`] also measures the process that listens on this port of this machine.
pub(crate) fn watch_broker(port: u16) {
    if let Some(pid) = listener(port) {
        // once: a process measures one side
        let _ = BROKER.set(pid);
    }
}

fn broker_cpu() -> Option<f64> {
    stat(*BROKER.get()?).map(|(_, _, cpu)| cpu)
}

/// Who listens on a port: the owner of the socket that the kernel lists as listening (state 0A).
fn listener(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let end = format!(":{port:04X}");
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = fields.get(9)?;
        (fields.get(1)?.ends_with(&end) && *fields.get(3)? == "0A").then(|| format!("socket:[{inode}]"))
    };
    let socket = tables.iter().flat_map(|table| table.lines()).find_map(listens)?;
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    })
}

/// Name, parent and microseconds of CPU of a process, with that of its children that have ended.
pub(crate) fn stat(pid: u32) -> Option<(String, u32, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    // a tick is 10 ms on every Linux
    Some((head.split_once('(')?.1.to_owned(), fields.get(1)?.parse().ok()?, ticks * 10_000.0))
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// By the nearest rank; 0 for none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// To a fraction of `1 / per`: more digits would be noise.
pub(crate) fn round(value: f64, per: f64) -> f64 {
    (value * per).round() / per
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(&values), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&[], 0.99), 0.0);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
    }
}
