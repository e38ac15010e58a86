use serde::Serialize;
use std::collections::BTreeMap;

/// What a checker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It held.
    True,
    /// It did not.
    False,
    /// There was nothing to judge.
    Vacuous,
}

/// A verdict, with what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether it held.
    pub verdict: Verdict,
    /// How many of each: what was looked at, and what was wrong.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first things that were wrong, ten at most.
    pub examples: Vec<String>,
    #[serde(skip)]
    wrong: u64,
}

impl Report {
    /// A report in which these faults have not occurred yet. They are named so that a 0 is a statement.
    pub(super) fn new(faults: &[&'static str]) -> Self {
        Self {
            verdict: Verdict::Vacuous,
            counts: faults.iter().map(|name| (*name, 0)).collect(),
            examples: Vec::new(),
            wrong: 0,
        }
    }

    /// Counts something that is as it should be.
    pub(super) fn saw(&mut self, what: &'static str, how_many: usize) {
        *self.counts.entry(what).or_default() += how_many as u64;
    }

    /// Counts something that is wrong.
    pub(super) fn fault(&mut self, fault: &'static str, example: impl FnOnce() -> String) {
        *self.counts.entry(fault).or_default() += 1;
        self.wrong += 1;
        if self.examples.len() < 10 {
            self.examples.push(format!("{fault}: {}", example()));
        }
    }

    /// The verdict: false if anything was wrong, vacuous if there was nothing to judge.
    pub(super) fn judge(mut self, judged: usize) -> Self {
        self.verdict = match (self.wrong, judged) {
            (1.., _) => Verdict::False,
            (0, 0) => Verdict::Vacuous,
            (0, _) => Verdict::True,
        };
        self
    }

    /// How many of something there were.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Whether it held, and was not vacuous.
    pub fn holds(&self) -> bool {
        self.verdict == Verdict::True
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_ten_and_counts_are_all() {
        let mut report = Report::new(&["lost", "ghosts"]);
        for n in 0..25 {
            report.fault("lost", || n.to_string());
        }
        let report = report.judge(25);
        assert_eq!((report.count("lost"), report.count("ghosts"), report.examples.len()), (25, 0, 10));
        assert_eq!(report.verdict, Verdict::False);
        let json = serde_json::to_string(&report).expect("json");
        assert!(json.starts_with("{\"verdict\":\"false\",\"counts\":{\"ghosts\":0,\"lost\":25}"), "{json}");
    }
}
