//! An open-loop generator, and what it measures: from the moment a message was due to be sent, however late it was.

use std::time::{Duration, Instant};

/// Microseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn micros(self) -> u64 {
        self.0.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
    }
}

/// Latencies in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn extend(&mut self, micros: impl Iterator<Item = u64>) {
        self.0.extend(micros);
    }

    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Without the first tenth: caches and statements were cold.
    pub(crate) fn into_micros(mut self) -> Vec<u64> {
        self.0.drain(..self.0.len() / 10);
        self.0
    }
}

/// What is to be sent when: `rate` a second, in ticks of a millisecond; what is late keeps its moment.
pub(crate) struct Pace {
    clock: Clock,
    begin: u64,
    rate: f64,
    next: u64,
    last: u64,
}

impl Pace {
    pub(crate) fn new(clock: Clock, rate: f64, messages: u64) -> Self {
        Self { clock, begin: clock.micros(), rate, next: 1, last: messages }
    }

    /// The numbers of the messages that are due, each with its moment. Empty when all were sent.
    pub(crate) async fn due(&mut self) -> Vec<(u64, u64)> {
        let mut batch = Vec::new();
        while batch.is_empty() && self.next <= self.last {
            let now = self.clock.micros();
            while self.next <= self.last && batch.len() < 500 {
                let at = self.begin + ((self.next - 1) as f64 * 1e6 / self.rate) as u64;
                if at > now {
                    break;
                }
                batch.push((self.next, at));
                self.next += 1;
            }
            if batch.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        batch
    }
}
