//! What was fetched of a partition and not read yet.
//!
//! Each partition has a queue of its own, which is read as far as there is room for it; the client fetches ahead as far as
//! its own limits go, and stops. Pausing a partition would have the client throw away what it has fetched, to fetch it
//! again: with a long backlog, most of the time goes into that.

use super::{lane::Place, watch::Watch};
use rdkafka::{
    consumer::{BaseConsumer, base_consumer::PartitionQueue},
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

pub(super) struct Source {
    pub(super) place: Place,
    queue: PartitionQueue<Watch>,
    more: Arc<AtomicBool>,
}

impl Source {
    /// To be called on the thread that reads, which is woken when something comes; and before the partition is assigned, so
    /// that all of it comes here. What does not comes from the consumer itself.
    pub(super) fn open(consumer: &Arc<BaseConsumer<Watch>>, place: &Place) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(&place.0, place.1)?;
        let more = Arc::new(AtomicBool::new(true));
        let (flag, thread) = (Arc::clone(&more), std::thread::current());
        queue.set_nonempty_callback(move || {
            flag.store(true, Ordering::Release);
            thread.unpark();
        });
        Some(Self { place: place.clone(), queue, more })
    }

    /// Whether there is something, as far as it was told.
    pub(super) fn has_more(&self) -> bool {
        self.more.load(Ordering::Acquire)
    }

    /// At most so many records.
    pub(super) fn read(&self, most: usize, mut take: impl FnMut(KafkaResult<BorrowedMessage<'_>>)) {
        // first: what comes meanwhile sets it again
        self.more.store(false, Ordering::Release);
        for _ in 0..most {
            match self.queue.poll(Duration::ZERO) {
                Some(record) => take(record),
                None => return,
            }
        }
        self.more.store(true, Ordering::Release);
    }
}
