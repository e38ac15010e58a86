//! Handlers that become ready together run together: one task for several, and one event for what it ran.
//!
//! A handler that waits for something goes on in a task of its own, and so does everything behind handlers that have
//! computed for long. Measured on the durable saga: a task and an event for each handler cost a fifth of the engine's CPU.

use super::{Event, run::handle, unit::UnitId};
use sagabus_core::{Invocation, InvocationResult, Route, Runtime};
use std::{sync::Arc, task::Poll, time::Duration};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Most handlers of one task.
const MOST: usize = 32;
/// A task that has run for so long leaves the rest to others.
const LONG: Duration = Duration::from_micros(300);

/// A handler that is to run.
pub(super) struct Start {
    pub(super) unit: UnitId,
    /// The lane's, when it started.
    pub(super) epoch: u64,
    pub(super) route: Arc<dyn Route>,
    pub(super) run: Invocation,
    pub(super) span: tracing::Span,
}

/// A handler that has run; an error is the text of a panic, or that it was dropped.
pub(crate) struct Ran {
    pub(crate) unit: UnitId,
    pub(crate) epoch: u64,
    pub(crate) output: Result<Box<InvocationResult>, String>,
}

/// Runs them all, over enough tasks for several cores.
pub(super) fn launch(starts: &mut Vec<Start>, sender: &mpsc::UnboundedSender<Event>, runtime: &Runtime) {
    let size = (starts.len() / 4).clamp(1, MOST);
    let mut starts = starts.drain(..);
    while starts.len() > 0 {
        let group: Vec<Start> = starts.by_ref().take(size).collect();
        runtime.spawn(run(group, sender.clone(), runtime.clone()));
    }
}

async fn run(group: Vec<Start>, sender: mpsc::UnboundedSender<Event>, runtime: Runtime) {
    let began = runtime.elapsed();
    let mut ran = Vec::with_capacity(group.len());
    let mut group = group.into_iter();
    while let Some(Start { unit, epoch, route, run: input, span }) = group.next() {
        let mut running = Box::pin(limited(route, input, runtime.clone()).instrument(span));
        match futures::poll!(&mut running) {
            Poll::Ready(output) => ran.push(Ran { unit, epoch, output }),
            Poll::Pending => {
                let sender = sender.clone();
                runtime.spawn(async move {
                    let output = running.await;
                    // the engine may have ended meanwhile
                    let _ = sender.send(Event::Ran(vec![Ran { unit, epoch, output }]));
                });
            }
        }
        if group.len() > 0 && runtime.elapsed() - began > LONG {
            let mut rest: Vec<Start> = group.collect();
            launch(&mut rest, &sender, &runtime);
            break;
        }
    }
    if !ran.is_empty() {
        // the engine may have ended meanwhile
        let _ = sender.send(Event::Ran(ran));
    }
}

/// A handler that holds its transaction beyond the store's limit is dropped, which gives the connection back.
async fn limited(route: Arc<dyn Route>, input: Invocation, runtime: Runtime) -> Result<Box<InvocationResult>, String> {
    let hold = input.context.deadline();
    tokio::select! {
        biased;
        output = handle(route, input) => output,
        limit = hold.exceeded(&runtime) => Err(format!("the handler held its transaction longer than {limit:?}")),
    }
}
