//! The port of whatever carries messages between endpoints.

use crate::{DatabaseId, Destination, Envelope, Error, Fence, NodeId, OffsetStore, Outgoing, Result, RowGate, Runtime};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};

/// A broker, or the queues of a database.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// What it can do. What it cannot is refused when the endpoint is built.
    fn capabilities(&self) -> Capabilities;

    /// The database whose tables the queues are, if so. When it is the store's, rows of the queue are gates (joined).
    fn database(&self) -> Option<&DatabaseId>;

    /// Creates queues and subscriptions. Idempotent; never deletes a queue.
    async fn provision(&self, topology: &Topology) -> Result<()>;

    /// Starts receiving from a queue.
    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>>;

    /// Sends messages; one outcome each, in order. Done means durable at the other side.
    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome>;

    /// Sends commands that are delivered only after a while, and never before. Done means that they are durable on their way.
    /// They can be neither listed nor called back. Only for a transport with [`Capabilities::longest_delay`].
    async fn send_delayed(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        vec![SendOutcome::Unroutable("this transport cannot delay messages".into()); batch.len()]
    }

    /// Whether the transport is usable right now; the text of the error goes into the endpoint's health.
    async fn health(&self) -> Result<()>;

    /// Lets go of connections.
    async fn close(&self);
}

/// What a transport can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Deliveries of one order key come one after another, to one node at a time.
    pub ordered: bool,
    /// Publish and subscribe.
    pub topics: bool,
    /// A queue per process, for replies.
    pub reply_queues: bool,
    /// Largest message in bytes, headers included.
    pub max_message: usize,
    /// For how long it can hold a message back by itself, without a store; `None`: not at all.
    pub longest_delay: Option<Duration>,
}

impl Capabilities {
    /// All of it, without a bound on size; but no delays, which are the store's.
    pub fn all() -> Self {
        Self { ordered: true, topics: true, reply_queues: true, max_message: usize::MAX, longest_delay: None }
    }

    /// Refuses a delay that this transport cannot keep.
    ///
    /// # Errors
    /// [Unsupported](Error::is_unsupported) where there are no delays, [invalid](Error::is_invalid) for one that is too
    /// long, for an event, and for what has an order key.
    pub fn check_delay(&self, outgoing: &Outgoing, delay: Duration) -> Result<()> {
        let kind = &outgoing.message.headers.message_type;
        let Some(longest) = self.longest_delay else {
            return Err(Error::unsupported(format!(
                "delay {kind}: this transport cannot delay messages; let a saga's timeout send it"
            )));
        };
        if delay > longest {
            return Err(Error::invalid(format!("delay {kind} by {delay:?}: {longest:?} is the longest here")));
        }
        if matches!(outgoing.to, Destination::Topic(_)) {
            return Err(Error::invalid(format!(
                "delay {kind}: only what is sent can be delayed, not what is published"
            )));
        }
        if outgoing.message.headers.order_key.is_some() {
            return Err(Error::invalid(format!("delay {kind}: what is delayed has no order, so it cannot have a key")));
        }
        Ok(())
    }
}

/// What an endpoint needs on its transport.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Its own queue; none for a send-only endpoint.
    pub queue: Option<String>,
    /// The event types that its queue gets copies of.
    pub subscriptions: Vec<String>,
    /// Whether order per key is kept.
    pub ordered: bool,
    /// Whether the queue goes away with the process (a reply queue).
    pub temporary: bool,
    /// Whether the endpoint has no store: its dead letters lie on the transport, in the queue `<queue>.error`.
    pub storeless: bool,
}

/// How to receive.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// From which queue.
    pub queue: String,
    /// This node.
    pub node: NodeId,
    /// Most deliveries that are handed out and not settled: the back-pressure.
    pub window: usize,
    /// Whether order per key matters: then deliveries carry a fence.
    pub ordered: bool,
    /// How long leases last.
    pub lease: Duration,
    /// Where to write down how far it has come, where the transport is a log that can be set back; others need none.
    pub offsets: Option<Arc<dyn OffsetStore>>,
    /// Time, ids, tasks.
    pub runtime: Runtime,
}

/// The receiving end of one queue.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// The next deliveries: at least one and at most `max`, waiting as long as it takes. Cancel-safe. An error that is
    /// [closed](Error::is_closed) ends the stream; any other one may be asked again after a pause.
    async fn next(&self, max: usize) -> Result<Vec<Delivery>>;

    /// Settles deliveries. A token of an earlier connection or lease is ignored: what it named comes again.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()>;

    /// Hands out nothing more, returns what was not handed out, and lets settled ones through. `next` ends as closed.
    async fn stop(&self);

    /// After `stop` and the last settlement: lets go of the queue.
    async fn close(&self);
}

/// A message handed out by a transport.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message. One that cannot be understood has a made-up id and type, its raw headers among the user headers, and
    /// a `defect`. Shared, since a receiver keeps what it may have to hand out again.
    pub message: Arc<Envelope>,
    /// Why it cannot be understood: it goes to the dead letters with this reason.
    pub defect: Option<String>,
    /// For settling.
    pub token: Token,
    /// The row that is this delivery's gate, if the transport's queues lie in a database.
    pub gate: Option<RowGate>,
    /// Ordered endpoints: the lease under which it was read.
    pub fence: Option<Fence>,
    /// It may have been in flight when a process died: run it alone, and count the attempt before the handler.
    pub suspect: bool,
    /// It has no id of its own: handled at least once.
    pub anonymous: bool,
}

/// Names a delivery to its receiver. Opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The connection or lease.
    pub epoch: u64,
    /// Where in it.
    pub position: u64,
}

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Which.
    pub token: Token,
    /// What.
    pub settle: Settle,
}

/// See [`Settlement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// All its units are committed: remove it.
    Done,
    /// The commit has already removed it, with its gate.
    Committed,
    /// It was not started: deliver it again, to anyone, without counting a delivery.
    Return,
}

/// What became of one sent message.
#[derive(Clone, Debug)]
pub enum SendOutcome {
    /// It is durable at its destination.
    Done,
    /// The destination does not exist; trying again does not help. The text says which.
    Unroutable(String),
    /// It was not sent; try again.
    Retry(Error),
    /// It may have been sent; repeat it with the same id only.
    Unknown(Error),
}

impl SendOutcome {
    /// Whether it is durable.
    pub fn is_done(&self) -> bool {
        matches!(self, SendOutcome::Done)
    }
}
