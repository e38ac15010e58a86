//! The one JSON line every check ends with.

use std::fmt;
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything it claims was seen to hold.
    Pass,
    /// Something it claims does not hold, or it could not be carried out.
    Fail,
    /// Nothing was violated, but the run did not hit what it was to hit, so it proved nothing.
    Vacuous,
}

/// The last line of a check's stdout.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    check: &'static str,
    verdict: Outcome,
    seed: Option<u64>,
    counts: Map<String, Value>,
    seconds: f64,
}

impl Verdict {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.verdict
    }

    /// 0 only for a pass; vacuous is 2, so that a caller can tell "wrong" from "nothing proved".
    pub fn exit_code(&self) -> ExitCode {
        match self.verdict {
            Outcome::Pass => ExitCode::SUCCESS,
            Outcome::Fail => ExitCode::from(1),
            Outcome::Vacuous => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&line)
    }
}

/// Collects counts and time while a check runs.
#[derive(Debug)]
pub struct Timer {
    check: &'static str,
    seed: Option<u64>,
    counts: Map<String, Value>,
    started: Instant,
}

impl Timer {
    /// Starts the clock.
    pub fn start(check: &'static str) -> Self {
        Self { check, seed: None, counts: Map::new(), started: Instant::now() }
    }

    /// Notes the seed, so that the run can be repeated.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets a count.
    pub fn count(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.counts.insert(name.to_owned(), value.into());
        self
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        seconds_since(self.started)
    }

    /// Stops the clock and judges.
    pub fn finish(self, outcome: Outcome) -> Verdict {
        let seconds = self.seconds();
        Verdict { check: self.check, verdict: outcome, seed: self.seed, counts: self.counts, seconds }
    }

    /// The verdict of a check that could not be carried out.
    pub fn fail_with_error(mut self, error: &anyhow::Error) -> Verdict {
        self.count("errors", 1).count("error", format!("{error:#}"));
        self.finish(Outcome::Fail)
    }
}

/// Seconds since `started`, to the millisecond: more digits would only be noise in a verdict.
pub fn seconds_since(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_line_of_json_with_the_agreed_names() {
        let mut timer = Timer::start("crash").seed(7);
        timer.count("kills", 3).count("p99_ms", 1.5);
        let line = timer.finish(Outcome::Vacuous).to_string();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["check"], "crash");
        assert_eq!(value["verdict"], "vacuous");
        assert_eq!(value["seed"], 7);
        assert_eq!(value["counts"]["kills"], 3);
        assert!(value["seconds"].is_number());
    }

    #[test]
    fn only_a_pass_exits_with_zero() {
        let code = |outcome| format!("{:?}", Timer::start("x").finish(outcome).exit_code());
        assert_eq!(code(Outcome::Pass), format!("{:?}", ExitCode::SUCCESS));
        assert_ne!(code(Outcome::Fail), code(Outcome::Pass));
        assert_ne!(code(Outcome::Vacuous), code(Outcome::Pass));
    }
}
