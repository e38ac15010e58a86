//! A publishing channel: what is on its way, and what became of it.

use super::{encode::Wire, error::unknown, link::Live};
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
    channel: Arc<Channel>,
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
    sending: Vec<Sending>,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// A message until it has got to the socket; then its confirm is what there is to wait for.
type Sending = BoxFuture<'static, lapin::Result<PublisherConfirm>>;

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
        Self { channel: Arc::new(channel), live, shared, batches, _collector: collector }
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
fn send(channel: Arc<Channel>, wire: Wire) -> Sending {
    Box::pin(async move {
        // an event that nobody takes may be one whose bindings are gone
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        channel.basic_publish(wire.exchange, wire.routing_key, options, &wire.body, wire.properties).await
    })
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
            let confirms = self.collect(batch.sending, &mut returned).await;
            self.shared.window.add_permits(count);
            let verdicts = batch.keys.into_iter().zip(confirms).map(|(key, confirm)| match confirm {
                Verdict::Done | Verdict::Retry(_) if take(&mut returned, &key) => Verdict::Returned,
                verdict => verdict,
            });
            // whoever asked may be gone
            let _ = batch.reply.send(verdicts.collect());
        }
    }

    async fn collect(&self, mut sending: Vec<Sending>, returned: &mut Returned) -> Vec<Verdict> {
        let count = sending.len();
        if self.shared.broken.load(Ordering::Acquire) {
            // a confirm that nobody waited for may have carried off the message of one of these that was returned
            let text = "rabbitmq did not confirm an earlier message on this channel";
            return vec![Verdict::Unknown(Error::new(ErrorKind::Unknown, text)); count];
        }
        let mut verdicts = Vec::with_capacity(count);
        let all = async {
            // when the last one is confirmed nearly all are: waiting for each one in turn would wake this task for many of them
            let last = match sending.pop() {
                Some(last) => Some(confirmation(last).await),
                None => None,
            };
            for sending in sending {
                verdicts.push(verdict(confirmation(sending).await, returned));
            }
            verdicts.extend(last.map(|last| verdict(last, returned)));
        };
        if self.runtime.timeout(self.limit, all).await.is_none() {
            // nothing that is on its way here can be trusted any more
            self.shared.broken.store(true, Ordering::Release);
            let late = Error::new(ErrorKind::Unknown, "rabbitmq did not confirm in time");
            verdicts.clear();
            verdicts.resize(count, Verdict::Unknown(late));
        } else if verdicts.iter().any(|v| matches!(v, Verdict::Unknown(_))) {
            self.shared.broken.store(true, Ordering::Release);
        }
        verdicts
    }
}

/// What the broker says to a message, when it has got to the socket.
async fn confirmation(sending: Sending) -> lapin::Result<Confirmation> {
    sending.await?.await
}

fn verdict(confirmation: lapin::Result<Confirmation>, returned: &mut Returned) -> Verdict {
    match confirmation {
        Ok(Confirmation::Ack(message)) => {
            note(returned, message.as_ref());
            Verdict::Done
        }
        Ok(Confirmation::Nack(message)) => {
            note(returned, message.as_ref());
            Verdict::Retry(Error::new(ErrorKind::Transient, "rabbitmq refused the message (nack): it is full"))
        }
        Ok(Confirmation::NotRequested) => {
            Verdict::Unknown(Error::new(ErrorKind::Unknown, "the channel is not in confirm mode"))
        }
        Err(error) => Verdict::Unknown(unknown(error)),
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
