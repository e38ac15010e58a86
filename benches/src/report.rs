//! What one side of a comparison did: a process of its own says it in one line of JSON.

use crate::measure::{Span, peak_mb, quantile, round, rss_mb};
use serde::{Deserialize, Serialize};

/// One run of the engine or of the baseline.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) messages: u64,
    /// From the first receive to the last durable output.
    pub(crate) seconds: f64,
    /// CPU of the process for each message.
    pub(crate) cpu_us: f64,
    /// Resident at the end, and at most.
    pub(crate) rss_mb: f64,
    pub(crate) peak_mb: f64,
    pub(crate) commits: u64,
    /// In microseconds; only with a generator.
    pub(crate) latencies: Vec<u64>,
    /// Further measurements, by name.
    #[serde(default)]
    pub(crate) more: std::collections::BTreeMap<String, f64>,
}

impl Side {
    /// This process, at the end of a stretch in which so many messages went through.
    pub(crate) fn measured(span: &Span, messages: u64, commits: u64) -> Self {
        let (seconds, cpu_us) = (span.seconds(), span.cpu_us_per(messages));
        let broker = span.broker_us_per(messages).map(|us| ("broker_cpu_us_per_message".to_owned(), us));
        let more = broker.into_iter().collect();
        Self { messages, seconds, cpu_us, rss_mb: rss_mb(), peak_mb: peak_mb(), commits, more, ..Self::default() }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// In milliseconds.
    pub(crate) fn latency(&self, q: f64) -> f64 {
        let micros: Vec<f64> = self.latencies.iter().map(|n| *n as f64).collect();
        round(quantile(&micros, q) / 1000.0, 100.0)
    }
}
