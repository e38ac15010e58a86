//! The memory transport passes the conformance suite, with every capability and without any.
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{Capabilities, Envelope, Headers, Intent, MessageId, NodeId, Runtime, Transport};
use sagabus_testkit::transport::{Promises, TransportHarness};
use sagabus_transports::memory::MemoryBroker;
use std::sync::Arc;

struct MemoryHarness(MemoryBroker);

impl MemoryHarness {
    fn full() -> Self {
        Self(MemoryBroker::new(Runtime::system()))
    }

    fn bare() -> Self {
        let mut capabilities = Capabilities::all();
        capabilities.ordered = false;
        capabilities.topics = false;
        capabilities.reply_queues = false;
        capabilities.max_message = 256 << 10;
        Self(MemoryBroker::with_capabilities(Runtime::system(), capabilities))
    }
}

#[async_trait]
impl TransportHarness for MemoryHarness {
    async fn open(&self) -> Arc<dyn Transport> {
        Arc::new(self.0.transport())
    }

    async fn again(&self) -> Arc<dyn Transport> {
        Arc::new(self.0.transport())
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.0.depth(queue).unwrap_or(0) as u64
    }

    async fn inject(&self, queue: &str, id: MessageId, _headers: Bytes, body: Bytes) -> bool {
        let headers = Headers::new(id, "kit.garbled", Intent::Command, Runtime::system().now());
        self.0.inject(queue, Envelope::new(headers, body), "not a message".into()).unwrap();
        true
    }

    async fn cut(&self, node: NodeId) -> bool {
        assert_eq!(self.0.cut(node), 1);
        true
    }

    fn promises(&self) -> Promises {
        Promises { deduplicates: false, removes_reply_queues: true }
    }
}

sagabus_testkit::transport_conformance!(full, MemoryHarness::full());
sagabus_testkit::transport_conformance!(bare, MemoryHarness::bare());
