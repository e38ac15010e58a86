//! A publishing channel: what is on its way, and what became of it.

use super::{connection::LiveConnection, encode::Wire, error::unknown};
use futures::future::{self, BoxFuture, FutureExt};
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
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What the broker said to one message.
#[derive(Clone, Debug)]
pub(super) enum PublishOutcome {
    Done,
    /// Nobody takes it.
    Returned,
    /// It refused.
    Retry(Error),
    /// It may have it.
    Unknown(Error),
}

/// One channel in confirm mode with its collector. Only the publisher's task publishes on it.
pub(super) struct PublishChannel {
    channel: Arc<Channel>,
    live: Arc<LiveConnection>,
    shared: Arc<ConfirmWindow>,
    batches: mpsc::UnboundedSender<Batch>,
    _collector: Task<()>,
}

struct ConfirmWindow {
    /// How many more may be on their way.
    window: Semaphore,
    broken: AtomicBool,
}

struct Batch {
    keys: Vec<Key>,
    sending: Vec<PendingSend>,
    reply: oneshot::Sender<Vec<PublishOutcome>>,
}

/// A message until it has got to the socket; then its confirm is what there is to wait for.
type PendingSend = BoxFuture<'static, lapin::Result<PublisherConfirm>>;

/// The id, and the routing key's hash: the same id may be on its way to several destinations.
type Key = (MessageId, u64);

fn key(id: MessageId, routing_key: &ShortString) -> Key {
    let mut hasher = DefaultHasher::new();
    routing_key.as_str().hash(&mut hasher);
    (id, hasher.finish())
}

impl PublishChannel {
    pub(super) fn start(
        channel: Channel,
        live: Arc<LiveConnection>,
        window: usize,
        limit: Duration,
        runtime: &Runtime,
    ) -> Self {
        let shared = Arc::new(ConfirmWindow { window: Semaphore::new(window), broken: AtomicBool::new(false) });
        let (batches, receiver) = mpsc::unbounded_channel();
        let collector = Collector { shared: Arc::clone(&shared), limit, runtime: runtime.clone() };
        let collector = runtime.spawn(collector.run(receiver));
        Self { channel: Arc::new(channel), live, shared, batches, _collector: collector }
    }

    pub(super) fn usable(&self) -> bool {
        self.live.usable() && self.channel.status().connected() && !self.shared.broken.load(Ordering::Acquire)
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.live.blocked()
    }

    /// Waits until so many more may be sent. False if that will never be.
    pub(super) async fn reserve(&self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match self.shared.window.acquire_many(count).await {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a batch; there must be [reserve](Self::room).
    pub(super) fn publish(&self, wires: Vec<Wire>, reply: oneshot::Sender<Vec<PublishOutcome>>) {
        let keys = wires.iter().map(|w| key(w.id, &w.routing_key)).collect();
        // each one takes its number and pushes its frames when it is polled first: that is now and in order, before the next
        // batch's; waiting for the socket is the collector's business
        let mut context = Context::from_waker(Waker::noop());
        let push = |wire| {
            let mut sending = send(Arc::clone(&self.channel), wire);
            match sending.as_mut().poll(&mut context) {
                Poll::Ready(sent) => future::ready(sent).boxed(),
                Poll::Pending => sending,
            }
        };
        let sending = wires.into_iter().map(push).collect();
        // the collector lives as long as the lane
        let _ = self.batches.send(Batch { keys, sending, reply });
    }
}

/// One message; the frames are pushed when this is polled first.
fn send(channel: Arc<Channel>, wire: Wire) -> PendingSend {
    Box::pin(async move {
        // an event that nobody takes may be one whose bindings are gone
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        channel.basic_publish(wire.exchange, wire.routing_key, options, &wire.body, wire.properties).await
    })
}

struct Collector {
    shared: Arc<ConfirmWindow>,
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
        let mut returned: ReturnCounts = HashMap::new();
        while let Some(batch) = batches.recv().await {
            let count = batch.keys.len();
            let confirms = self.collect(batch.sending, &mut returned).await;
            self.shared.window.add_permits(count);
            let outcomes = batch.keys.into_iter().zip(confirms).map(|(key, confirm)| match confirm {
                PublishOutcome::Done | PublishOutcome::Retry(_) if take_return(&mut returned, &key) => {
                    PublishOutcome::Returned
                }
                outcome => outcome,
            });
            // whoever asked may be gone
            let _ = batch.reply.send(outcomes.collect());
        }
    }

    async fn collect(&self, mut sending: Vec<PendingSend>, returned: &mut ReturnCounts) -> Vec<PublishOutcome> {
        let count = sending.len();
        if self.shared.broken.load(Ordering::Acquire) {
            // a confirm that nobody waited for may have carried off the message of one of these that was returned
            let text = "rabbitmq did not confirm an earlier message on this channel";
            return vec![PublishOutcome::Unknown(Error::new(ErrorKind::Unknown, text)); count];
        }
        let mut outcomes = Vec::with_capacity(count);
        let all = async {
            // when the last one is confirmed nearly all are: waiting for each one in turn would wake this task for many of them
            let last = match sending.pop() {
                Some(last) => Some(confirmation(last).await),
                None => None,
            };
            for sending in sending {
                outcomes.push(outcome(confirmation(sending).await, returned));
            }
            outcomes.extend(last.map(|last| outcome(last, returned)));
        };
        if self.runtime.timeout(self.limit, all).await.is_none() {
            // nothing that is on its way here can be trusted any more
            self.shared.broken.store(true, Ordering::Release);
            let late = Error::new(ErrorKind::Unknown, "rabbitmq did not confirm in time");
            outcomes.clear();
            outcomes.resize(count, PublishOutcome::Unknown(late));
        } else if outcomes.iter().any(|v| matches!(v, PublishOutcome::Unknown(_))) {
            self.shared.broken.store(true, Ordering::Release);
        }
        outcomes
    }
}

/// What the broker says to a message, when it has got to the socket.
async fn confirmation(sending: PendingSend) -> lapin::Result<Confirmation> {
    sending.await?.await
}

fn outcome(confirmation: lapin::Result<Confirmation>, returned: &mut ReturnCounts) -> PublishOutcome {
    match confirmation {
        Ok(Confirmation::Ack(message)) => {
            count_return(returned, message.as_ref());
            PublishOutcome::Done
        }
        Ok(Confirmation::Nack(message)) => {
            count_return(returned, message.as_ref());
            PublishOutcome::Retry(Error::new(ErrorKind::Transient, "rabbitmq refused the message (nack): it is full"))
        }
        Ok(Confirmation::NotRequested) => {
            PublishOutcome::Unknown(Error::new(ErrorKind::Unknown, "the channel is not in confirm mode"))
        }
        Err(error) => PublishOutcome::Unknown(unknown(error)),
    }
}

/// How often each message came back that is not judged yet: the same one may be on its way twice.
type ReturnCounts = HashMap<Key, usize>;

fn count_return(returned: &mut ReturnCounts, message: Option<&BasicReturnMessage>) {
    let Some(message) = message else { return };
    // one whose id is none of ours was not sent here
    if let Some(id) = message.properties.message_id() {
        let key = key(MessageId::from_foreign(id.as_str()), &message.routing_key);
        *returned.entry(key).or_default() += 1;
    }
}

fn take_return(returned: &mut ReturnCounts, key: &Key) -> bool {
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
