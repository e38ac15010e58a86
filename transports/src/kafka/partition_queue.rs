//! The queue of records that were fetched of a partition and not read yet.
//!
//! Each partition has a queue of its own, which is read as far as there is room for it; the client fetches ahead as far as
//! its own limits go, and stops. Pausing a partition would have the client throw away what it has fetched, to fetch it
//! again: with a long backlog, most of the time goes into that.

use super::{consumer_context::ReceiverContext, topic_partition::TopicPartition};
use rdkafka::{
    consumer::{BaseConsumer, base_consumer::PartitionQueue as ClientQueue},
    error::KafkaResult,
    message::BorrowedMessage,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The client's queue of one partition.
pub(super) struct PartitionQueue {
    pub(super) partition: TopicPartition,
    queue: ClientQueue<ReceiverContext>,
    has_more: Arc<AtomicBool>,
}

impl PartitionQueue {
    /// To be called on the thread that reads, which is woken when something comes; and before the partition is assigned, so
    /// that all of it comes here. What does not comes from the consumer itself.
    pub(super) fn open(consumer: &Arc<BaseConsumer<ReceiverContext>>, partition: &TopicPartition) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(&partition.topic, partition.partition)?;
        let has_more = Arc::new(AtomicBool::new(true));
        let (flag, thread) = (Arc::clone(&has_more), std::thread::current());
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            thread.unpark();
        });
        Some(Self { partition: partition.clone(), queue, has_more })
    }

    /// Whether there is something, as far as it was told.
    pub(super) fn has_more(&self) -> bool {
        self.has_more.load(Ordering::Acquire)
    }

    /// Reads at most `max` records.
    pub(super) fn read(&self, max: usize, mut take: impl FnMut(KafkaResult<BorrowedMessage<'_>>)) {
        // first: what comes meanwhile sets it again
        self.has_more.store(false, Ordering::Release);
        for _ in 0..max {
            match self.queue.poll(Duration::ZERO) {
                Some(record) => take(record),
                None => return,
            }
        }
        self.has_more.store(true, Ordering::Release);
    }
}
