//! What the parts of one transport share.

use super::{
    link::{Link, Live},
    names::Names,
    options::RabbitOptions,
    topology,
};
use crate::lock;
use sagabus_core::{Result, Topology};
use std::{collections::HashMap, sync::Mutex};

pub(super) struct Home {
    pub(super) names: Names,
    pub(super) options: RabbitOptions,
    /// For receiving, declaring and the reply queues.
    pub(super) consume: Link,
    /// What this process has asked for: made again when it is found missing.
    known: Mutex<HashMap<String, Topology>>,
    turn: tokio::sync::Mutex<()>,
}

impl Home {
    pub(super) fn new(names: Names, options: RabbitOptions, consume: Link) -> Self {
        Self { names, options, consume, known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    pub(super) async fn provision(&self, topology: &Topology) -> Result<()> {
        let live = self.consume.get(false).await?;
        let Some(queue) = &topology.queue else {
            return topology::declare_exchanges(&live, &self.names).await;
        };
        // the lock on the broker is the connection's, so within the process there is this one
        let _turn = self.turn.lock().await;
        if topology.temporary {
            topology::declare_exchanges(&live, &self.names).await?;
            topology::declare_temporary(&live, &self.names, queue, &topology.subscriptions).await?;
        } else {
            topology::provision(&live, &self.names, &self.options, topology).await?;
        }
        lock(&self.known).insert(queue.clone(), topology.clone());
        Ok(())
    }

    /// A reply queue went away with the last connection: makes it again.
    pub(super) async fn revive(&self, live: &Live, queue: &str) -> Result<bool> {
        let Some(topology) = self.topology(queue).filter(|topology| topology.temporary) else { return Ok(false) };
        topology::declare_temporary(live, &self.names, queue, &topology.subscriptions).await?;
        Ok(true)
    }

    /// Somebody deleted the queue: makes it again, if it was this process's to make.
    pub(super) async fn restore(&self, queue: &str) {
        let Some(topology) = self.topology(queue).filter(|topology| !topology.temporary) else { return };
        tracing::warn!(queue, "the queue is gone: it is declared again");
        if let Err(error) = self.provision(&topology).await {
            tracing::warn!(queue, %error, "could not declare it");
        }
    }

    fn topology(&self, queue: &str) -> Option<Topology> {
        lock(&self.known).get(queue).cloned()
    }
}
