//! `SAGABUS_BENCH_PERF=FILE`: has perf record this process while the clock runs, and not while files are prepared.

use std::process::{Child, Command, Stdio};

/// Ends the recording when it is dropped.
pub(crate) struct Profile(Option<Child>);

impl Profile {
    pub(crate) fn start() -> Self {
        let Some(file) = std::env::var_os("SAGABUS_BENCH_PERF") else { return Self(None) };
        let mut command = Command::new("perf");
        command.args(["record", "-q", "-g", "-F", "1999", "-p", &std::process::id().to_string(), "-o"]).arg(file);
        let child = command.stdout(Stdio::null()).spawn();
        // perf needs a moment to attach
        std::thread::sleep(std::time::Duration::from_millis(300));
        Self(child.inspect_err(|error| eprintln!("perf: {error}")).ok())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // SIGINT, as Ctrl-C would: on SIGKILL nothing is written
            let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}
