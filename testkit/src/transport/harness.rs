use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{MessageId, NodeId, Runtime, Transport};
use std::{sync::Arc, time::Duration};

/// What a transport brings to the conformance suite. Each case gets one of its own.
#[async_trait]
pub trait TransportHarness: Send + Sync + 'static {
    /// The first handle on a namespace that nobody else sees. Called once per case.
    async fn open(&self) -> Arc<dyn Transport>;

    /// Another handle on the same namespace, as another process would have.
    async fn again(&self) -> Arc<dyn Transport>;

    /// How many messages the queue holds, those that are handed out included.
    async fn depth(&self, queue: &str) -> u64;

    /// Puts a message into the queue whose headers are these raw bytes. False if there is no way to.
    async fn inject(&self, _queue: &str, _id: MessageId, _headers: Bytes, _body: Bytes) -> bool {
        false
    }

    /// Cuts a node off, without its knowledge, so that it loses what it holds. False if there is no way to.
    async fn cut(&self, _node: NodeId) -> bool {
        false
    }

    /// Undoes a cut.
    async fn mend(&self, _node: NodeId) {}

    /// Withholds a message from all readers, as a transaction that commits late does. False if there is no way to.
    async fn hide(&self, _id: MessageId) -> bool {
        false
    }

    /// Undoes hiding: the late transaction commits.
    async fn reveal(&self, _id: MessageId) {}

    /// What this transport promises beyond the port.
    fn promises(&self) -> Promises {
        Promises::default()
    }

    /// Whether what was returned, by a settlement or by a clean stop, is suspect when it comes again: a broker may mark it
    /// the same way as what was in flight when a process died.
    fn blurs_returns(&self) -> bool {
        false
    }

    /// How long leases last in the suite.
    fn lease(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// Where the suite takes time and ids from.
    fn runtime(&self) -> Runtime {
        Runtime::system()
    }

    /// The case is over: drop the namespace.
    async fn close(&self) {}
}

/// See [`TransportHarness::promises`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// A message id that a queue has seen is not queued again.
    pub deduplicates: bool,
    /// A reply queue goes away when its transport is closed.
    pub removes_reply_queues: bool,
}
