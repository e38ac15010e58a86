//! The name of a partition, here, for the client library and in the store.

use rdkafka::TopicPartitionList;
use sagabus_core::LogPartition;
use std::sync::Arc;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

impl TopicPartition {
    pub(super) fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The store's name of the partition.
    pub(super) fn log_partition(&self) -> LogPartition {
        LogPartition { log: format!("kafka:{}", self.topic).into(), partition: self.partition }
    }
}

/// The partitions as a list of the client library, without offsets.
pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
