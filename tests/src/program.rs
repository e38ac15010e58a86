//! What every program here does the same way.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Errors go to stderr, with what the endpoint logs (`RUST_LOG`, warnings by default).
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
}

/// Says one line of JSON to whoever started us. Stdout is a file there, so it must be flushed.
pub fn say(line: &serde_json::Value) {
    let mut out = io::stdout().lock();
    // a closed stdout means that nobody listens any more
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A log that is on the disk before what it announces happens: the oracle of a run.
pub struct SyncedLog(File);

impl SyncedLog {
    pub fn append(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub fn write(&mut self, line: &serde_json::Value) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())?;
        self.0.sync_data()
    }

    /// Several with one sync.
    pub fn write_all(&mut self, lines: &[serde_json::Value]) -> io::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.0.write_all(text.as_bytes())?;
        self.0.sync_data()
    }
}

/// Ends when somebody asks for an orderly end.
pub async fn terminated() {
    sagabus::shutdown_signal().await;
}
