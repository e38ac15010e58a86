//! Named points at which a test lets the process die or stop. Nothing of it is in a normal build.
//!
//! With the hidden feature `__crash`, the environment decides: `SAGABUS_CRASH=point[:nth[:kill|stop]]` sends the process
//! SIGKILL (or SIGSTOP) by kill(2) when it reaches the point for the nth time, and `SAGABUS_CRASH_LOG=path` gets a line
//! per point reached first.

/// The points, in the order of a message's way.
pub const POINTS: &[&str] = &[
    "received",        // a delivery is routed, nothing is loaded yet
    "loaded",          // states and inbox are read, the handler has not started
    "handler-wrote",   // the handler has written its first own row
    "handled",         // the handler is done, nothing is handed to the committer
    "commit-applied",  // every effect is in the transaction, COMMIT not sent
    "commit-returned", // COMMIT is done, nobody has been told
    "committed",       // the endpoint knows, nothing is dispatched
    "publish-sent",    // the transport has the message, the confirm is not read
    "confirmed",       // the confirm is read, the outbox row is still there
    "outbox-deleted",  // the outbox row is gone
    "settling",        // all units are committed, the delivery is not settled
    "settled",         // the delivery is settled
    "deferred",        // a delayed retry is stored, the delivery is not settled
    "buried",          // a dead letter is stored, the delivery is not settled
    "timer-read",      // a due timer is read, its handler has not started
    "timer-handled",   // a timer's handler is done, nothing is committed
    "relay-read",      // the relay has taken over rows, nothing is sent
    "draining",        // a stop was asked for, work is in flight
];

/// Marks a point of [`POINTS`].
#[cfg(not(feature = "__crash"))]
#[inline(always)]
pub fn reach(_point: &'static str) {}

/// Marks a point of [`POINTS`].
#[cfg(feature = "__crash")]
pub fn reach(point: &'static str) {
    armed::reach(point);
}

#[cfg(feature = "__crash")]
mod armed {
    use std::{
        io::Write as _,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    struct Plan {
        point: String,
        nth: u64,
        stop: bool,
        hits: AtomicU64,
        log: Option<String>,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let spec = std::env::var("SAGABUS_CRASH").ok()?;
            let mut parts = spec.split(':');
            let point = parts.next()?.to_string();
            let nth = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
            let stop = parts.next() == Some("stop");
            Some(Plan { point, nth, stop, hits: AtomicU64::new(0), log: std::env::var("SAGABUS_CRASH_LOG").ok() })
        })
        .as_ref()
    }

    pub(super) fn reach(point: &'static str) {
        let Some(plan) = plan() else { return };
        if plan.point != point || plan.hits.fetch_add(1, Ordering::SeqCst) + 1 != plan.nth {
            return;
        }
        if let Some(path) = &plan.log
            && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
        {
            // the harness learns from this line that the point was hit; without it the case is vacuous
            let _ = writeln!(file, "{point}");
        }
        let signal = if plan.stop { rustix::process::Signal::STOP } else { rustix::process::Signal::KILL };
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}
