//! Endpoints without a store: plain handlers, at least once.
//!
//! The engine knows one way of a message: run, commit, settle. Here a unit is committed when the transport has confirmed
//! everything that came of it: its sends, the message itself if it is to be tried again later, or its dead letter. Only
//! then is the delivery settled; so nothing is lost, and whatever goes wrong before that runs the handler again.
//!
//! - A handler's sends have the same ids at each run, so whoever has a store handles them once.
//! - A delayed retry is the message itself, sent to its own queue with a delay. It names the handler, so that others of the
//!   same type do not run again, and how often it was tried.
//! - A dead letter lies in the queue `<endpoint>.error`, with the reason among its headers. Moved back into the endpoint's
//!   queue it is tried anew, by the handler that failed.
//! - A message that ends the process is counted by the broker alone, which sets it aside there too.

mod admin;
mod requeue;
mod store;

pub(crate) use requeue::intended_handler;
use sagabus_sagas::Handlers;
pub(crate) use store::AtLeastOnceStore;

/// Lists the settings that need a store, each with the fix.
pub(crate) fn unsupported_settings(name: &str, has_store: bool, ordered: bool, handlers: &Handlers) -> Vec<String> {
    let mut problems = Vec::new();
    if has_store {
        problems.push(format!(
            "endpoint {name} has a store and `.at_least_once()`, which is for those without: remove one"
        ));
    }
    if let Some(saga) = handlers.a_saga() {
        problems.push(format!("saga {saga} needs a store: replace `.at_least_once()` by `.store(\"…\")`"));
    }
    if ordered {
        problems.push(format!(
            "endpoint {name} is ordered, which needs a store: replace `.at_least_once()` by `.store(\"…\")`"
        ));
    }
    problems
}
