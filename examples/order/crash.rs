//! `--crash-at`: dies or stops at a named point of a message's way, by its own hand.

use crate::options::Options;
use std::{convert::Infallible, os::unix::process::CommandExt, process::Command};

const VARIABLE: &str = "SAGABUS_CRASH";

/// Starts over with the point in the environment, where the library looks for it. (A program may not change its own
/// environment safely once it has threads.)
pub(crate) fn arm(options: &Options) -> Result<(), String> {
    let Some(spec) = &options.crash_at else { return Ok(()) };
    if !cfg!(feature = "__crash") {
        return Err("--crash-at needs a build with crash points: cargo run --features __crash --example order".into());
    }
    let point = spec.split(':').next().unwrap_or_default();
    let points = sagabus::ports::crash::POINTS;
    if !points.contains(&point) {
        return Err(format!("there is no crash point {point:?}; there are {}", points.join(", ")));
    }
    if std::env::var(VARIABLE).is_ok_and(|armed| armed == *spec) {
        return Ok(());
    }
    match start_over(spec) {
        Err(error) => Err(format!("cannot start over with a crash point: {error}")),
        Ok(never) => match never {},
    }
}

fn start_over(spec: &str) -> std::io::Result<Infallible> {
    let error = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(VARIABLE, spec).exec();
    Err(error)
}
