//! The last line of a command.

use serde::Serialize;
use serde_json::{Map, Value};
use std::{process::ExitCode, time::Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// Nothing was wrong, but it did not hit what it was to hit.
    Vacuous,
}

/// Collects counts and judges.
#[derive(Serialize)]
pub(crate) struct Verdict {
    check: &'static str,
    verdict: Outcome,
    seed: Option<u64>,
    counts: Map<String, Value>,
    seconds: f64,
    #[serde(skip)]
    started: Option<Instant>,
    /// Why not.
    #[serde(skip)]
    problems: Vec<String>,
}

impl Verdict {
    pub(crate) fn start(check: &'static str) -> Self {
        Self {
            check,
            verdict: Outcome::Pass,
            seed: None,
            counts: Map::new(),
            seconds: 0.0,
            started: Some(Instant::now()),
            problems: Vec::new(),
        }
    }

    pub(crate) fn count(&mut self, name: &str, value: impl Into<Value>) {
        self.counts.insert(name.to_owned(), value.into());
    }

    /// Fails unless it holds.
    pub(crate) fn require(&mut self, holds: bool, text: impl Into<String>) {
        if !holds {
            self.verdict = Outcome::Fail;
            self.problems.push(text.into());
        }
    }

    pub(crate) fn vacuous(&mut self, text: impl Into<String>) {
        self.verdict = Outcome::Vacuous;
        self.problems.push(text.into());
    }

    /// Prints the reasons and the line.
    pub(crate) fn finish(mut self) -> ExitCode {
        if let Some(started) = self.started {
            self.seconds = crate::measure::round(started.elapsed().as_secs_f64(), 1000.0);
        }
        for problem in &self.problems {
            eprintln!("{}: {problem}", self.check);
        }
        match serde_json::to_string(&self) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("{error}"),
        }
        match self.verdict {
            Outcome::Pass => ExitCode::SUCCESS,
            Outcome::Fail => ExitCode::from(1),
            Outcome::Vacuous => ExitCode::from(2),
        }
    }
}
