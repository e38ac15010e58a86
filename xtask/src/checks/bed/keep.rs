//! `--keep`: the generator's log, the ledger and the audit as JSON lines, for somebody else's checker.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::backend;

/// Where runs lie: in a directory that goes away with this, or in the one to keep.
#[derive(Debug)]
pub struct Ground {
    dir: PathBuf,
    keep: bool,
}

impl Ground {
    /// Makes it.
    pub fn prepare(check: &str, keep: Option<&Path>) -> Result<Self> {
        let dir = match keep {
            Some(dir) => std::path::absolute(dir).context("find the directory to keep")?,
            None => std::env::temp_dir().join(format!("sagabus-{check}-{}", std::process::id())),
        };
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir, keep: keep.is_some() })
    }

    /// The directory of one run.
    pub fn run(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Done with a run: writes its tables as JSON lines if they are to be kept, else removes it.
    pub fn done(&self, run: &Path, failed: bool) -> Result<()> {
        // a server that we have started ends with us, and its tables with it
        if self.keep || (failed && backend::is_on_a_server(run)) {
            let mut store = backend::store_of(run)?;
            let tables = store.tables()?;
            let kept = [
                ("effect", "ledger"),
                ("ledger", "ledger"),
                ("orders", "orders"),
                ("audit", "audit"),
                ("dead_letter", "dead_letters"),
                ("saga", "sagas"),
                ("timer", "timers"),
            ];
            for (table, file) in kept.into_iter().filter(|(table, _)| tables.iter().any(|name| name == table)) {
                let lines: Vec<String> = store.dump(table)?.iter().map(ToString::to_string).collect();
                let text = lines.join("\n") + if lines.is_empty() { "" } else { "\n" };
                fs::write(run.join(format!("{file}.jsonl")), text).with_context(|| format!("write {file}.jsonl"))?;
            }
        }
        if failed {
            println!("what it left is in {}", run.display());
        } else if !self.keep {
            backend::forget(run)?;
            fs::remove_dir_all(run).with_context(|| format!("remove {}", run.display()))?;
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !self.keep {
            // what failed is still in it, and stays
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
