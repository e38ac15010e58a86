//! A publishing channel: what is on its way, and what became of it.

use super::{encode::Wire, error::unknown, link::Live};
use futures::future::{BoxFuture, FutureExt, join_all};
use lapin::{
    Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage, options::BasicPublishOptions,
    types::ShortString,
};
use sagabus_core::{Error, ErrorKind, MessageId, Runtime, Task};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What the broker said to one message.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Done,
    /// Nobody takes it.
    Returned,
    /// It refused.
    Retry(Error),
    /// It may have it.
    Unknown(Error),
}

/// One channel in confirm mode with its collector. Only the publisher's task publishes on it.
pub(super) struct PublishLane {
    channel: Channel,
    live: Arc<Live>,
    shared: Arc<Shared>,
    batches: mpsc::UnboundedSender<Batch>,
    _collector: Task<()>,
}

struct Shared {
    /// How many more may be on their way.
    window: Semaphore,
    broken: AtomicBool,
}

struct Batch {
    keys: Vec<Key>,
    sending: BoxFuture<'static, Vec<lapin::Result<PublisherConfirm>>>,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// The id, and the routing key's hash: the same id may be on its way to several destinations.
type Key = (MessageId, u64);

fn key(id: MessageId, routing_key: &ShortString) -> Key {
    let mut hasher = DefaultHasher::new();
    routing_key.as_str().hash(&mut hasher);
    (id, hasher.finish())
}

impl PublishLane {
    pub(super) fn start(channel: Channel, live: Arc<Live>, window: usize, limit: Duration, runtime: &Runtime) -> Self {
        let shared = Arc::new(Shared { window: Semaphore::new(window), broken: AtomicBool::new(false) });
        let (batches, receiver) = mpsc::unbounded_channel();
        let collector = Collector { shared: Arc::clone(&shared), limit, runtime: runtime.clone() };
        let collector = runtime.spawn(collector.run(receiver));
        Self { channel, live, shared, batches, _collector: collector }
    }

    pub(super) fn usable(&self) -> bool {
        self.live.usable() && self.channel.status().connected() && !self.shared.broken.load(Ordering::Acquire)
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.live.blocked()
    }

    /// Waits until so many more may be sent. False if that will never be.
    pub(super) async fn room(&self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match self.shared.window.acquire_many(count).await {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a batch; there must be [room](Self::room).
    pub(super) fn publish(&self, wires: Vec<Wire>, reply: oneshot::Sender<Vec<Verdict>>) {
        let keys = wires.iter().map(|w| key(w.id, &w.routing_key)).collect();
        let channel = self.channel.clone();
        let mut sending = async move {
            let mut wires = wires;
            let bodies: Vec<bytes::Bytes> = wires.iter_mut().map(|wire| std::mem::take(&mut wire.body)).collect();
            let send = |(wire, body)| {
                let Wire { exchange, routing_key, properties, .. } = wire;
                // an event that nobody takes may be one whose bindings are gone
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                channel.basic_publish(exchange, routing_key, options, body, properties)
            };
            let sends = wires.into_iter().zip(bodies.iter().map(|body| &body[..])).map(send);
            // each one takes its number and pushes its frames when it is polled first, so here they go in order
            join_all(sends).await
        }
        .boxed();
        // the frames must be pushed now, before the next batch's; waiting for the socket is the collector's business
        let sending = match futures::poll_once(&mut sending) {
            Some(done) => futures::future::ready(done).boxed(),
            None => sending,
        };
        // the collector lives as long as the lane
        let _ = self.batches.send(Batch { keys, sending, reply });
    }
}

mod futures {
    pub(super) use ::futures::future;

    /// Polls once, without waiting; whoever polls next registers the waker.
    pub(super) fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}

struct Collector {
    shared: Arc<Shared>,
    limit: Duration,
    runtime: Runtime,
}

impl Collector {
    /// Batch after batch, in the order in which they were sent.
    ///
    /// lapin puts a returned message onto whichever confirm completes next, which may be an earlier message's, and with
    /// confirms out of order a later one's. What holds is: a message that was returned has surfaced when its own confirm
    /// *and those of all messages before it* are in. So a batch is judged when it and all earlier ones are complete, and
    /// by the ids of the returned messages, never by which confirm carried them.
    async fn run(self, mut batches: mpsc::UnboundedReceiver<Batch>) {
        let mut returned: Returned = HashMap::new();
        while let Some(batch) = batches.recv().await {
            let count = batch.keys.len();
            let confirms = self.collect(batch.sending, count, &mut returned).await;
            self.shared.window.add_permits(count);
            let verdicts = batch.keys.into_iter().zip(confirms).map(|(key, confirm)| match confirm {
                Verdict::Done | Verdict::Retry(_) if take(&mut returned, &key) => Verdict::Returned,
                verdict => verdict,
            });
            // whoever asked may be gone
            let _ = batch.reply.send(verdicts.collect());
        }
    }

    async fn collect(
        &self,
        sending: BoxFuture<'static, Vec<lapin::Result<PublisherConfirm>>>,
        count: usize,
        returned: &mut Returned,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(count);
        let all = async {
            for confirm in sending.await {
                let confirmation = match confirm {
                    Ok(confirm) => confirm.await,
                    Err(error) => Err(error),
                };
                verdicts.push(match confirmation {
                    Ok(Confirmation::Ack(message)) => {
                        note(returned, message.as_ref());
                        Verdict::Done
                    }
                    Ok(Confirmation::Nack(message)) => {
                        note(returned, message.as_ref());
                        Verdict::Retry(Error::new(
                            ErrorKind::Transient,
                            "rabbitmq refused the message (nack): it is full",
                        ))
                    }
                    Ok(Confirmation::NotRequested) => {
                        Verdict::Unknown(Error::new(ErrorKind::Unknown, "the channel is not in confirm mode"))
                    }
                    Err(error) => Verdict::Unknown(unknown(error)),
                });
            }
        };
        // on a broken channel nothing is worth waiting for
        let limit = if self.shared.broken.load(Ordering::Acquire) { Duration::from_millis(10) } else { self.limit };
        if self.runtime.timeout(limit, all).await.is_none() {
            // nothing that is on its way here can be trusted any more
            self.shared.broken.store(true, Ordering::Release);
            let late = Error::new(ErrorKind::Unknown, "rabbitmq did not confirm in time");
            verdicts.resize(count, Verdict::Unknown(late));
        } else if verdicts.iter().any(|v| matches!(v, Verdict::Unknown(_))) {
            self.shared.broken.store(true, Ordering::Release);
        }
        verdicts
    }
}

/// How often each message came back that is not judged yet: the same one may be on its way twice.
type Returned = HashMap<Key, usize>;

fn note(returned: &mut Returned, message: Option<&BasicReturnMessage>) {
    let Some(message) = message else { return };
    // one whose id is none of ours was not sent here
    if let Some(id) = message.properties.message_id() {
        let key = key(MessageId::from_foreign(id.as_str()), &message.routing_key);
        *returned.entry(key).or_default() += 1;
    }
}

fn take(returned: &mut Returned, key: &Key) -> bool {
    if returned.is_empty() {
        return false;
    }
    let Some(count) = returned.get_mut(key) else { return false };
    *count -= 1;
    if *count == 0 {
        returned.remove(key);
    }
    true
}
