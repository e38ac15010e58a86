use super::TransportHarness;
use bytes::Bytes;
use sagabus_core::{
    Delivery, Destination, Envelope, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Receiver, Runtime,
    SendOutcome, Settle, Settlement, Topology, Transport,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long the suite waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long it watches for what must not happen.
pub(crate) const GLANCE: Duration = Duration::from_millis(250);

/// What a case works with: a fresh transport, and the steps that many cases share.
#[derive(Clone)]
pub struct Fixture {
    /// The backend's.
    pub harness: Arc<dyn TransportHarness>,
    /// The first process's handle.
    pub transport: Arc<dyn Transport>,
    /// Time and ids.
    pub runtime: Runtime,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

impl Fixture {
    /// A bed over an open transport.
    pub fn new(harness: Arc<dyn TransportHarness>, transport: Arc<dyn Transport>) -> Self {
        let runtime = harness.runtime();
        Self { harness, transport, runtime }
    }

    /// Creates a queue with subscriptions.
    pub async fn queue(&self, name: &str, topics: &[&str]) {
        let topology = Topology {
            queue: Some(name.into()),
            subscriptions: topics.iter().map(|topic| (*topic).into()).collect(),
            ordered: self.transport.capabilities().ordered,
            temporary: false,
            storeless: false,
        };
        self.transport.provision(&topology).await.unwrap();
    }

    /// How to receive as a new node.
    pub fn options(&self, queue: &str, window: usize) -> ReceiveOptions {
        ReceiveOptions {
            queue: queue.into(),
            node: NodeId(self.runtime.uuid()),
            window,
            ordered: false,
            lease: self.harness.lease(),
            offsets: None,
            runtime: self.runtime.clone(),
        }
    }

    /// Receives as a new node of the first process.
    pub async fn receiver(&self, queue: &str, window: usize) -> Arc<dyn Receiver> {
        self.transport.receive(self.options(queue, window)).await.unwrap()
    }

    /// The same, ordered; with the node's id.
    pub async fn ordered(&self, queue: &str, window: usize) -> (Arc<dyn Receiver>, NodeId) {
        let options = ReceiveOptions { ordered: true, ..self.options(queue, window) };
        let node = options.node;
        (self.transport.receive(options).await.unwrap(), node)
    }

    /// A message with a new id.
    pub fn message(&self, body: impl Into<Bytes>) -> Envelope {
        let id = MessageId(self.runtime.uuid());
        Envelope::new(Headers::new(id, "kit.message", Intent::Command, self.runtime.now()), body)
    }

    /// Messages of one order key, numbered in their bodies.
    pub fn keyed(&self, key: &str, numbers: std::ops::Range<u32>) -> Vec<Envelope> {
        numbers
            .map(|n| {
                let mut message = self.message(n.to_string());
                message.headers.order_key = Some(key.into());
                message
            })
            .collect()
    }

    /// Sends to a queue; all must be Done. Answers the ids.
    pub async fn send(&self, queue: &str, messages: Vec<Envelope>) -> Vec<MessageId> {
        self.dispatch(Destination::Queue(queue.into()), messages).await
    }

    /// Sends so many small messages.
    pub async fn fill(&self, queue: &str, count: usize) -> Vec<MessageId> {
        let messages = (0..count).map(|n| self.message(n.to_string())).collect();
        self.send(queue, messages).await
    }

    /// Publishes to a topic; all must be Done.
    pub async fn publish(&self, topic: &str, messages: Vec<Envelope>) -> Vec<MessageId> {
        self.dispatch(Destination::Topic(topic.into()), messages).await
    }

    async fn dispatch(&self, to: Destination, messages: Vec<Envelope>) -> Vec<MessageId> {
        let ids = messages.iter().map(|m| m.headers.message_id).collect();
        let batch: Vec<Outgoing> = messages.into_iter().map(|message| Outgoing { to: to.clone(), message }).collect();
        for part in batch.chunks(500) {
            let outcomes = self.transport.send_batch(part).await;
            assert_eq!(outcomes.len(), part.len());
            assert!(outcomes.iter().all(SendOutcome::is_done), "{outcomes:?}");
        }
        ids
    }

    /// Exactly so many deliveries, not settled.
    pub async fn take(&self, receiver: &Arc<dyn Receiver>, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let start = self.runtime.elapsed();
        while deliveries.len() < count {
            let left = PATIENCE.saturating_sub(self.runtime.elapsed() - start);
            let next = self.runtime.timeout(left, receiver.next(count - deliveries.len())).await;
            let next = next.unwrap_or_else(|| panic!("got {} of {count} deliveries", deliveries.len()));
            deliveries.extend(next.unwrap());
        }
        deliveries
    }

    /// Takes and settles until every one of these ids came. Answers how often each came, strangers included.
    pub async fn drain(&self, receiver: &Arc<dyn Receiver>, ids: &[MessageId]) -> BTreeMap<MessageId, u32> {
        let mut seen = BTreeMap::new();
        let start = self.runtime.elapsed();
        let missing = |seen: &BTreeMap<MessageId, u32>| ids.iter().filter(|id| !seen.contains_key(id)).count();
        while seen.len() < ids.len() || missing(&seen) > 0 {
            let left = PATIENCE.saturating_sub(self.runtime.elapsed() - start);
            let next = self.runtime.timeout(left, receiver.next(200)).await;
            let next = next.unwrap_or_else(|| panic!("{} of {} are missing", missing(&seen), ids.len())).unwrap();
            for delivery in &next {
                *seen.entry(delivery.message.headers.message_id).or_insert(0) += 1;
            }
            self.settle(receiver, &next, Settle::Done).await;
        }
        seen
    }

    /// Nothing comes for a moment.
    pub async fn nothing(&self, receiver: &Arc<dyn Receiver>) {
        if let Some(next) = self.runtime.timeout(GLANCE, receiver.next(10)).await {
            panic!("nothing should come: {next:?}");
        }
    }

    /// None of them is suspect, unless the transport cannot tell what was returned from what was in flight at a death.
    pub fn unsuspected(&self, deliveries: &[Delivery]) -> bool {
        self.harness.blurs_returns() || deliveries.iter().all(|d| !d.suspect)
    }

    /// Settles deliveries.
    pub async fn settle(&self, receiver: &Arc<dyn Receiver>, deliveries: &[Delivery], settle: Settle) {
        let settlements = deliveries.iter().map(|d| Settlement { token: d.token, settle }).collect();
        receiver.settle(settlements).await.unwrap();
    }

    /// Waits until the queue holds so many messages.
    pub async fn depth(&self, queue: &str, wanted: u64) {
        self.eventually(&format!("{wanted} messages in {queue}"), async || {
            (self.harness.depth(queue).await == wanted).then_some(())
        })
        .await;
    }

    /// Asks again until there is an answer: the suite's only way of waiting.
    pub async fn eventually<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let start = self.runtime.elapsed();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(self.runtime.elapsed() - start < PATIENCE, "waited in vain for: {what}");
            self.runtime.sleep(Duration::from_millis(5)).await;
        }
    }

    /// The same namespace as another process sees it.
    pub async fn again(&self) -> Self {
        Self { transport: self.harness.again().await, ..self.clone() }
    }
}

/// The ids of deliveries, in order.
pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<MessageId> {
    deliveries.iter().map(|d| d.message.headers.message_id).collect()
}

/// The same without regard to order.
pub(crate) fn sorted(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    ids.sort_unstable();
    ids
}

/// The body as text.
pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}
