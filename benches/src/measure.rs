//! CPU, memory and quantiles of this process.

use nix::sys::resource::{UsageWho, getrusage};
use std::time::{Duration, Instant};

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
}

impl Span {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }

    /// Microseconds of CPU for each of `n`.
    pub(crate) fn cpu_us_per(&self, n: u64) -> f64 {
        (cpu().saturating_sub(self.cpu)).as_secs_f64() * 1e6 / n.max(1) as f64
    }
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
