//! Reads what `cargo test` prints, to count it. The lines themselves are passed on: CI reads them too.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// What a `cargo test` command ran.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Test programs (and doc test runs) that reported.
    pub programs: u64,
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that are marked to be left out.
    pub ignored: u64,
    /// The names of the tests that ran, each with whether it passed.
    pub tests: Vec<(String, bool)>,
}

impl Summary {
    /// Takes in one line of output.
    pub fn feed(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.programs += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.ignored += number_before(result, " ignored");
        } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... ")) {
            match outcome {
                "ok" => self.tests.push((name.to_owned(), true)),
                "FAILED" => self.tests.push((name.to_owned(), false)),
                _ => {}
            }
        }
    }

    /// Adds another command's.
    pub fn add(&mut self, other: Self) {
        self.programs += other.programs;
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.tests.extend(other.tests);
    }

    /// How many tests with this word in their path (module, file or name) passed and failed.
    pub fn with_word(&self, word: &str) -> (u64, u64) {
        let mine = |name: &str| name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word);
        let count = |wanted| self.tests.iter().filter(|(name, passed)| *passed == wanted && mine(name)).count() as u64;
        (count(true), count(false))
    }
}

/// Runs `command`, passing its output on line by line.
pub fn run(command: &mut Command) -> Result<(ExitStatus, Summary)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let mut summary = Summary::default();
    if let Some(stdout) = child.stdout.take() {
        let mut ours = std::io::stdout().lock();
        for line in BufReader::new(stdout).split(b'\n') {
            // A test may print anything, so not everything is a string.
            let line = String::from_utf8_lossy(&line.context("read cargo test's output")?).into_owned();
            writeln!(ours, "{line}").context("pass on cargo test's output")?;
            summary.feed(&line);
        }
    }
    Ok((child.wait().context("wait for cargo test")?, summary))
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().filter(|before| before.len() < text.len()).unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Summary;

    fn read(output: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.feed(line));
        summary
    }

    #[test]
    fn results_of_all_programs_add_up() {
        let summary = read(
            "running 2 tests
test store::sqlite::keeps_rows ... ok
test store::memory::keeps_rows ... FAILED
test slow ... ignored

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 1 test
test outbox/src/sqlite/mod.rs - sqlite::open (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s",
        );
        assert_eq!((summary.programs, summary.passed, summary.failed, summary.ignored), (2, 2, 1, 1));
        assert_eq!(summary.with_word("sqlite"), (2, 0));
        assert_eq!(summary.with_word("memory"), (0, 1));
        assert_eq!(summary.with_word("sql"), (0, 0), "a part of a word is not the word");
    }

    #[test]
    fn other_output_counts_for_nothing() {
        let summary = read("test result\n   Compiling test v1\ntest result: passed failed\nthe test x ... ok");
        assert_eq!((summary.passed, summary.failed, summary.tests.len()), (0, 0, 0));
    }
}
