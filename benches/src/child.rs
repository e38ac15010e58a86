//! Runs one side in a process of its own: its CPU and memory are then its own too.

use crate::{args::Spec, files, report::Side};
use anyhow::{Context as _, Result, bail};
use std::process::{Command, Stdio};

/// Runs it, and reads its last line.
pub(crate) fn run(spec: &Spec) -> Result<Side> {
    let (spec, _files) = files::fresh(spec)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("side").arg(serde_json::to_string(&spec)?);
    measure(command, &spec)
}

/// The same by another command line, whose last line must be the side's.
pub(crate) fn measure(mut command: Command, spec: &Spec) -> Result<Side> {
    let output = command.stderr(Stdio::inherit()).output().context("start a process for one side")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    if !output.status.success() {
        bail!("the {:?} ended with {}: {line}", spec.who, output.status);
    }
    serde_json::from_str(line).with_context(|| format!("the {:?} said {line:?}", spec.who))
}
