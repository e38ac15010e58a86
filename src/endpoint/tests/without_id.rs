//! Messages from outside that have no id.

use super::at_least_once::broker;
use crate::{prelude::*, store::memory::MemoryStore};
use sagabus_core::{
    Capabilities, DatabaseId, Delivery, Outgoing, ReceiveOptions, Receiver, Runtime, SendOutcome, Settlement, Topology,
    Transport,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

message!(Job, "without-id.job");

async fn work(_: Job, _: &mut Context) -> Result {
    Ok(())
}

/// A transport and its receiver, where messages of even orders have no id.
struct Foreign<T: ?Sized>(Arc<T>);

#[async_trait::async_trait]
impl Transport for Foreign<dyn Transport> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        self.0.database()
    }

    async fn provision(&self, topology: &Topology) -> sagabus_core::Result<()> {
        self.0.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> sagabus_core::Result<Arc<dyn Receiver>> {
        Ok(Arc::new(Foreign(self.0.receive(options).await?)))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        self.0.send_batch(batch).await
    }

    async fn health(&self) -> sagabus_core::Result<()> {
        self.0.health().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait::async_trait]
impl Receiver for Foreign<dyn Receiver> {
    async fn next(&self, max: usize) -> sagabus_core::Result<Vec<Delivery>> {
        let mut deliveries = self.0.next(max).await?;
        for delivery in &mut deliveries {
            let job: Job = serde_json::from_slice(&delivery.message.body).unwrap();
            delivery.anonymous = job.order.is_multiple_of(2);
        }
        Ok(deliveries)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> sagabus_core::Result<()> {
        self.0.settle(settlements).await
    }

    async fn stop(&self) {
        self.0.stop().await;
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test]
async fn messages_without_an_id_are_counted() {
    let (_, transport) = broker();
    let endpoint = Endpoint::builder("foreign")
        .transport(Arc::new(Foreign(transport)) as Arc<dyn Transport>)
        .store(Arc::new(MemoryStore::new(Runtime::system())))
        .on(work)
        .build()
        .await
        .unwrap();
    let bus = endpoint.bus();
    let running = endpoint.start().await.unwrap();
    for order in 0..5 {
        bus.send(Job { order }).await.unwrap();
    }
    let handled = async {
        while running.stats().handled < 5 {
            Runtime::system().sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(Runtime::system().timeout(Duration::from_secs(10), handled).await.is_some(), "{:?}", running.stats());
    running.stop().await.unwrap();
    assert_eq!((running.stats().received, running.stats().without_id), (5, 3));
}
