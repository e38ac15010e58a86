//! Handlers that become ready together run together: one task for several, and one event for what it ran.
//!
//! A handler that waits for something goes on in a task of its own, and so does everything behind handlers that have
//! computed for long. Measured on the durable saga: a task and an event for each handler cost a fifth of the engine's CPU.

use super::{
    event::{Event, HandlerRan},
    keys::UnitId,
};
use futures::FutureExt;
use sagabus_core::{Invocation, InvocationContext, InvocationResult, Route, Runtime};
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, task::Poll, time::Duration};
use tokio::sync::mpsc;
use tracing::Instrument;

/// Most handlers of one task.
const MAX_HANDLERS_PER_TASK: usize = 32;
/// A task that has run for so long leaves the rest to others.
const MAX_TASK_RUN_TIME: Duration = Duration::from_micros(300);

/// A handler that is to run.
pub(super) struct HandlerStart {
    pub(super) unit: UnitId,
    /// The lane's, when it started.
    pub(super) epoch: u64,
    pub(super) route: Arc<dyn Route>,
    pub(super) run: Invocation,
    pub(super) span: tracing::Span,
}

/// Runs them all, over enough tasks for several cores.
pub(super) fn launch(starts: &mut Vec<HandlerStart>, sender: &mpsc::UnboundedSender<Event>, runtime: &Runtime) {
    let size = (starts.len() / 4).clamp(1, MAX_HANDLERS_PER_TASK);
    let mut starts = starts.drain(..);
    while starts.len() > 0 {
        let group: Vec<HandlerStart> = starts.by_ref().take(size).collect();
        runtime.spawn(run(group, sender.clone(), runtime.clone()));
    }
}

async fn run(group: Vec<HandlerStart>, sender: mpsc::UnboundedSender<Event>, runtime: Runtime) {
    let began = runtime.elapsed();
    let mut ran = Vec::with_capacity(group.len());
    let mut group = group.into_iter();
    while let Some(HandlerStart { unit, epoch, route, run: input, span }) = group.next() {
        let mut running = Box::pin(limited(route, input, runtime.clone()).instrument(span));
        match futures::poll!(&mut running) {
            Poll::Ready(output) => ran.push(HandlerRan { unit, epoch, output }),
            Poll::Pending => {
                let sender = sender.clone();
                runtime.spawn(async move {
                    let output = running.await;
                    // the engine may have ended meanwhile
                    let _ = sender.send(Event::HandlersRan(vec![HandlerRan { unit, epoch, output }]));
                });
            }
        }
        if group.len() > 0 && runtime.elapsed() - began > MAX_TASK_RUN_TIME {
            let mut rest: Vec<HandlerStart> = group.collect();
            launch(&mut rest, &sender, &runtime);
            break;
        }
    }
    if !ran.is_empty() {
        // the engine may have ended meanwhile
        let _ = sender.send(Event::HandlersRan(ran));
    }
}

/// A handler that holds its transaction beyond the store's limit is dropped, which gives the connection back.
async fn limited(route: Arc<dyn Route>, input: Invocation, runtime: Runtime) -> Result<Box<InvocationResult>, String> {
    let deadline = input.context.deadline();
    tokio::select! {
        biased;
        output = handle(route, input) => output,
        limit = deadline.exceeded(&runtime) => Err(format!("the handler held its transaction longer than {limit:?}")),
    }
}

/// Runs one handler; a panic becomes the text of an error.
async fn handle(route: Arc<dyn Route>, run: Invocation) -> Result<Box<InvocationResult>, String> {
    let panicked = |panic: Box<dyn Any + Send>| format!("the handler panicked: {}", panic_text(&*panic));
    // building the future is the route's code too
    let future = std::panic::catch_unwind(AssertUnwindSafe(|| route.run(run))).map_err(panicked)?;
    AssertUnwindSafe(future).catch_unwind().await.map(Box::new).map_err(panicked)
}

/// The text of a panic, as far as it has one.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}
