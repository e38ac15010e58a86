//! The log of events: lines for people, and with `--log` lines of JSON for checkers.
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

struct EventLog {
    since: Instant,
    quiet: bool,
    log: Option<File>,
}

static EVENT_LOG: OnceLock<EventLog> = OnceLock::new();

/// Opens the process's log. Sagas take no dependencies, so it is a static.
pub(crate) fn open(quiet: bool, log: Option<&Path>) -> io::Result<()> {
    let log = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
    // opened once, by main
    let _ = EVENT_LOG.set(EventLog { since: Instant::now(), quiet, log });
    Ok(())
}

/// A line about an order, from a handler.
pub(crate) fn say(ctx: &Context, order: u64, text: impl Display) {
    line(ctx.endpoint(), order, text);
}

/// A line about an order.
pub(crate) fn line(who: &str, order: u64, text: impl Display) {
    let Some(event_log) = EVENT_LOG.get().filter(|event_log| !event_log.quiet) else { return };
    let seconds = event_log.since.elapsed().as_secs_f64();
    tell(format_args!("{seconds:9.3}  {who:<8}  order {order:<5} {text}"));
}

/// A line, whether quiet or not.
pub(crate) fn tell(text: impl Display) {
    // a reader that has gone away (`| head`) does not end the work
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Seconds since the start of the process.
pub(crate) fn seconds() -> f64 {
    EVENT_LOG.get().map_or(0.0, |event_log| event_log.since.elapsed().as_secs_f64())
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
    let Some(mut file) = EVENT_LOG.get().and_then(|event_log| event_log.log.as_ref()) else { return };
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let line = format!("{{\"at_us\":{at},\"pid\":{},{fields}}}\n", std::process::id());
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
        eprintln!("error: cannot write the log: {error}");
        // a log with holes would accuse the bus of what the log has done
        std::process::exit(3);
    }
}
