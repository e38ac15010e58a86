//! Publishing: batches in, one verdict per message out.

use super::{
    connection::ConnectionManager,
    encode::Wire,
    error::failed,
    publish_channel::{PublishChannel, PublishOutcome},
    topology_manager::TopologyManager,
};
use sagabus_core::{Error, ErrorKind, Result, Runtime, Task};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// The one task that publishes.
///
/// lapin hands out the numbers of confirms and pushes frames under different locks, so two tasks that publish on one
/// channel could each be told what became of the other's message. All publishing of a process goes through this task.
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    task: Task<()>,
}

struct Job {
    wires: Vec<Wire>,
    reply: oneshot::Sender<Vec<PublishOutcome>>,
}

/// What the task needs.
pub(super) struct PublisherOptions {
    pub(super) connection: Arc<ConnectionManager>,
    pub(super) manager: Arc<TopologyManager>,
    pub(super) window: usize,
    pub(super) confirm_timeout: Duration,
    pub(super) runtime: Runtime,
}

/// How many messages go to the socket together: at most this, and at most a quarter of the window.
const MAX_MESSAGES_PER_CHUNK: usize = 256;

impl Publisher {
    pub(super) fn start(options: PublisherOptions) -> Self {
        // a few batches wait here, the rest with those who send them
        let (jobs, receiver) = mpsc::channel(16);
        let runtime = options.runtime.clone();
        let task = runtime.spawn(run(options, receiver));
        Self { jobs, task }
    }

    /// Publishes in order; one verdict each. Dropping the future does not stop what was begun.
    pub(super) async fn publish(&self, mut wires: Vec<Wire>, window: usize) -> Vec<PublishOutcome> {
        let chunk = MAX_MESSAGES_PER_CHUNK.min(window / 4).max(1);
        let mut outcomes = Vec::with_capacity(wires.len());
        let mut waiting = Vec::with_capacity(wires.len() / chunk + 1);
        while !wires.is_empty() {
            let rest = wires.split_off(chunk.min(wires.len()));
            let (reply, answer) = oneshot::channel();
            let count = wires.len();
            let sent = self.jobs.send(Job { wires, reply }).await.is_ok();
            waiting.push((count, sent, answer));
            wires = rest;
        }
        for (count, sent, answer) in waiting {
            match answer.await {
                Ok(chunk) => outcomes.extend(chunk),
                Err(_) if sent => {
                    outcomes.resize(outcomes.len() + count, PublishOutcome::Unknown(ended(ErrorKind::Unknown)))
                }
                Err(_) => outcomes.resize(outcomes.len() + count, PublishOutcome::Retry(ended(ErrorKind::Closed))),
            }
        }
        outcomes
    }

    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ended(kind: ErrorKind) -> Error {
    Error::new(kind, "the transport was closed while sending")
}

async fn run(options: PublisherOptions, mut jobs: mpsc::Receiver<Job>) {
    let mut current: Option<PublishChannel> = None;
    while let Some(Job { wires, reply }) = jobs.recv().await {
        if current.as_ref().is_some_and(|channel| !channel.usable()) {
            current = None;
        }
        if current.is_none() {
            match open(&options).await {
                Ok(channel) => current = Some(channel),
                Err(error) => {
                    refuse(wires.len(), reply, &error);
                    continue;
                }
            }
        }
        let Some(channel) = &current else { continue };
        if let Some(reason) = channel.blocked() {
            let text = format!("rabbitmq takes no messages for now: {reason}");
            refuse(wires.len(), reply, &Error::new(ErrorKind::Transient, text));
            continue;
        }
        // what the window has no room for waits here, and so does everyone behind it: that is the back-pressure
        match options.runtime.timeout(options.confirm_timeout, channel.reserve(wires.len())).await {
            Some(true) if channel.usable() => channel.publish(wires, reply),
            Some(true) => {
                let text = "the channel to rabbitmq broke while this waited for its turn";
                refuse(wires.len(), reply, &Error::new(ErrorKind::Transient, text));
            }
            _ => {
                let text = "rabbitmq confirms nothing: no room for more";
                refuse(wires.len(), reply, &Error::new(ErrorKind::Transient, text));
            }
        }
    }
}

fn refuse(count: usize, reply: oneshot::Sender<Vec<PublishOutcome>>, error: &Error) {
    // whoever asked may be gone
    let _ = reply.send(vec![PublishOutcome::Retry(error.clone()); count]);
}

/// A channel in confirm mode. Before, the exchanges are made if they are missing, and all bindings with them: publishing to
/// one that is missing closes the channel and leaves everything on its way unknown, and to one without bindings nobody
/// would get it.
async fn open(options: &PublisherOptions) -> Result<PublishChannel> {
    let live = options.connection.get(false).await?;
    let limit = options.confirm_timeout;
    let opening = async {
        options.manager.ensure_exchanges().await?;
        options.manager.restore_delays().await?;
        let doing = "open a channel for publishing";
        let channel = live.connection.create_channel().await.map_err(|e| failed(doing, e))?;
        channel.confirm_select(Default::default()).await.map_err(|e| failed(doing, e))?;
        Ok(channel)
    };
    let channel = options
        .runtime
        .timeout(limit, opening)
        .await
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Transient, "rabbitmq opens no channel: no answer in time")))?;
    Ok(PublishChannel::start(channel, live, options.window, limit, &options.runtime))
}
