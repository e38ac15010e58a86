//! Publishing: batches in, one verdict per message out.

use super::{
    encode::Wire,
    error::failed,
    home::Home,
    lane::{PublishLane, Verdict},
    link::Link,
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
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// What the task needs.
pub(super) struct PublisherOptions {
    pub(super) link: Arc<Link>,
    pub(super) home: Arc<Home>,
    pub(super) window: usize,
    pub(super) confirm_timeout: Duration,
    pub(super) runtime: Runtime,
}

/// How many messages go to the socket together: at most this, and at most a quarter of the window.
const CHUNK: usize = 256;

impl Publisher {
    pub(super) fn start(options: PublisherOptions) -> Self {
        // a few batches wait here, the rest with those who send them
        let (jobs, receiver) = mpsc::channel(16);
        let runtime = options.runtime.clone();
        let task = runtime.spawn(run(options, receiver));
        Self { jobs, task }
    }

    /// Publishes in order; one verdict each. Dropping the future does not stop what was begun.
    pub(super) async fn publish(&self, mut wires: Vec<Wire>, window: usize) -> Vec<Verdict> {
        let chunk = CHUNK.min(window / 4).max(1);
        let mut verdicts = Vec::with_capacity(wires.len());
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
                Ok(chunk) => verdicts.extend(chunk),
                Err(_) if sent => verdicts.resize(verdicts.len() + count, Verdict::Unknown(ended(ErrorKind::Unknown))),
                Err(_) => verdicts.resize(verdicts.len() + count, Verdict::Retry(ended(ErrorKind::Closed))),
            }
        }
        verdicts
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
    let mut current: Option<PublishLane> = None;
    while let Some(Job { wires, reply }) = jobs.recv().await {
        if current.as_ref().is_some_and(|lane| !lane.usable()) {
            current = None;
        }
        if current.is_none() {
            match open(&options).await {
                Ok(lane) => current = Some(lane),
                Err(error) => {
                    refuse(wires.len(), reply, &error);
                    continue;
                }
            }
        }
        let Some(lane) = &current else { continue };
        if let Some(reason) = lane.blocked() {
            let text = format!("rabbitmq takes no messages for now: {reason}");
            refuse(wires.len(), reply, &Error::new(ErrorKind::Transient, text));
            continue;
        }
        // what the window has no room for waits here, and so does everyone behind it: that is the back-pressure
        match options.runtime.timeout(options.confirm_timeout, lane.room(wires.len())).await {
            Some(true) if lane.usable() => lane.publish(wires, reply),
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

fn refuse(count: usize, reply: oneshot::Sender<Vec<Verdict>>, error: &Error) {
    // whoever asked may be gone
    let _ = reply.send(vec![Verdict::Retry(error.clone()); count]);
}

/// A channel in confirm mode. Before, the exchanges are made if they are missing, and all bindings with them: publishing to
/// one that is missing closes the channel and leaves everything on its way unknown, and to one without bindings nobody
/// would get it.
async fn open(options: &PublisherOptions) -> Result<PublishLane> {
    let live = options.link.get(false).await?;
    let limit = options.confirm_timeout;
    let opening = async {
        options.home.ready().await?;
        options.home.delays_again().await?;
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
    Ok(PublishLane::start(channel, live, options.window, limit, &options.runtime))
}
