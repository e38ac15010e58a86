//! What happens, as it happens: lines for people, and with `--log` lines of JSON for checkers.
//!
//! A handler speaks before its commit. One that is killed or has to run again therefore speaks twice; its rows are
//! there once.

use sagabus::Context;
use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

struct Diary {
    since: Instant,
    quiet: bool,
    log: Option<File>,
}

static DIARY: OnceLock<Diary> = OnceLock::new();

/// Sagas take no dependencies, so the diary is the process's own.
pub(crate) fn open(quiet: bool, log: Option<&Path>) -> io::Result<()> {
    let log = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    // opened once, by main
    let _ = DIARY.set(Diary { since: Instant::now(), quiet, log });
    Ok(())
}

/// A line about an order, from a handler.
pub(crate) fn say(ctx: &Context, order: u64, text: impl Display) {
    line(ctx.endpoint(), order, text);
}

/// A line about an order.
pub(crate) fn line(who: &str, order: u64, text: impl Display) {
    let Some(diary) = DIARY.get().filter(|diary| !diary.quiet) else { return };
    let seconds = diary.since.elapsed().as_secs_f64();
    tell(format_args!("{seconds:9.3}  {who:<8}  order {order:<5} {text}"));
}

/// A line, whether quiet or not.
pub(crate) fn tell(text: impl Display) {
    // a reader that has gone away (`| head`) does not end the work
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Seconds since the start of the process.
pub(crate) fn seconds() -> f64 {
    DIARY.get().map_or(0.0, |diary| diary.since.elapsed().as_secs_f64())
}

/// Logs that a handler begins.
pub(crate) fn start(ctx: &Context, order: u64) {
    let headers = ctx.headers();
    log(format_args!(
        r#""event":"start","endpoint":"{}","message":"{}","id":"{}","attempts":{},"order":{order}"#,
        ctx.endpoint(),
        headers.message_type,
        headers.message_id,
        ctx.attempts()
    ));
}

/// Logs that an order is placed: its transaction has committed.
pub(crate) fn placed(order: u64) {
    log(format_args!(r#""event":"placed","order":{order}"#));
}

/// One write and one sync per line, so that what is in the log has happened, whoever dies when.
fn log(fields: std::fmt::Arguments<'_>) {
    let Some(mut file) = DIARY.get().and_then(|diary| diary.log.as_ref()) else { return };
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let line = format!("{{\"at_us\":{at},\"pid\":{},{fields}}}\n", std::process::id());
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
        eprintln!("error: cannot write the log: {error}");
        // a log with holes would accuse the bus of what the log has done
        std::process::exit(3);
    }
}
