use crate::{
    args::{Common, Spec, Who, Work},
    child, files,
    verdict::Verdict,
};
use anyhow::{Context as _, Result};
use std::process::Command;

/// kill -9 cannot show a missing fsync, because the page cache survives the process; strace can.
pub(super) fn run(common: &Common) -> Result<Verdict> {
    let mut verdict = Verdict::start("bench-fsync");
    if Command::new("strace").arg("-V").output().is_err() {
        verdict.vacuous("strace is not installed: apt-get install strace");
        return Ok(verdict);
    }
    let spec = common.spec(Who::Engine, Work::Saga);
    // strace makes every system call slow
    let spec = Spec { messages: spec.messages.min(20_000), keys: spec.keys.min(1000), ..spec };
    let (spec, files) = files::fresh(&spec)?;
    let directory = files.path().context("fsync needs a store in a file")?.to_path_buf();
    let trace = directory.join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=fdatasync,fsync", "-o"]).arg(&trace);
    command.arg(std::env::current_exe()?).arg("side").arg(serde_json::to_string(&spec)?);
    let side = match child::measure(command, &spec) {
        Ok(side) => side,
        Err(error) => {
            verdict.vacuous(format!("strace did not run the program: {error:#}"));
            return Ok(verdict);
        }
    };
    let text = std::fs::read_to_string(&trace)?;
    // an interrupted call stands in two lines; a failed one does not count
    let of_log = |line: &&str| line.contains("sync(") && line.contains("-wal>");
    let syncs = text.lines().filter(of_log).count() as u64;
    verdict.count("fdatasyncs", syncs);
    verdict.count("commits", side.commits);
    verdict.count("messages", side.messages);
    verdict.require(side.commits > 0, "nothing was committed");
    verdict.require(syncs >= side.commits, format!("{} commits, and {syncs} times the log was synced", side.commits));
    Ok(verdict)
}
