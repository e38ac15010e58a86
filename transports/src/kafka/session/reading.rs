//! Reading records as far as there is room for them.

use super::{
    super::{decode::decode, error::failed, partition::Record, partition_queue::PartitionQueue},
    Session, TopicPartition,
};
use crate::lock;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::KafkaError,
    message::{BorrowedMessage, Message},
    types::RDKafkaErrorCode as Code,
};
use sagabus_core::{Delivery, Error, ErrorKind, Token};
use std::{sync::Arc, time::Duration};

/// The most records that are read of a partition before the others, and everything else, are looked at.
const MAX_RECORDS_PER_READ: usize = 64;

/// Bytes that a record takes here besides its body.
const RECORD_OVERHEAD_BYTES: usize = 512;

impl Session {
    /// Reads these partitions from their start, without a group.
    pub(super) fn read_all_of(&mut self, partitions: &[TopicPartition]) {
        self.open_queues(partitions);
        let mut list = TopicPartitionList::new();
        for TopicPartition { topic, partition } in partitions {
            // the only error is an offset that cannot be
            let _ = list.add_partition_offset(topic, *partition, Offset::Beginning);
        }
        if let Err(error) = self.consumer.assign(&list) {
            self.state.halt(failed(format!("receive from {}", self.state.queue), error));
        }
    }

    /// Has the fetched records of these partitions wait in queues of their own.
    pub(super) fn open_queues(&mut self, partitions: &[TopicPartition]) {
        self.close_queues(partitions);
        self.queues.extend(partitions.iter().filter_map(|partition| PartitionQueue::open(&self.consumer, partition)));
    }

    pub(super) fn close_queues(&mut self, partitions: &[TopicPartition]) {
        self.queues.retain(|queue| !partitions.contains(&queue.partition));
    }

    /// Reads where there may be something or (`everywhere`) in all queues. Answers whether there was anything.
    pub(super) fn read(&mut self, everywhere: bool) -> bool {
        let mut records = Vec::new();
        // the group's events, and what was fetched before its partition had a queue of its own
        while records.len() < MAX_RECORDS_PER_READ {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => records.push(self.decode(&record)),
                Some(Err(error)) => self.read_failed(error),
                None => break,
            }
        }
        let rooms: Vec<(&PartitionQueue, usize)> = {
            let mut in_flight = lock(&self.state.in_flight);
            let some = self.queues.iter().filter(|queue| everywhere || queue.has_more());
            some.map(|queue| (queue, in_flight.room(&queue.partition))).filter(|(_, room)| *room > 0).collect()
        };
        for (queue, room) in rooms {
            queue.read(room.min(MAX_RECORDS_PER_READ), |record| match record {
                Ok(record) => records.push(self.decode(&record)),
                Err(error) => self.read_failed(error),
            });
        }
        if records.is_empty() {
            return false;
        }
        let mut in_flight = lock(&self.state.in_flight);
        for (partition, offset, record) in records {
            in_flight.push(&partition, offset, record);
        }
        drop(in_flight);
        self.state.arrived.notify_waiters();
        true
    }

    fn decode(&self, record: &BorrowedMessage<'_>) -> (TopicPartition, i64, Record) {
        let topics = &self.state.topics;
        let (topic, event) = match topics.get_key_value(record.topic()) {
            Some((topic, event)) => (Arc::clone(topic), event.as_deref()),
            None => (Arc::from(record.topic()), None),
        };
        let dated = record.timestamp().to_millis().is_some();
        let decoded = decode(record, event, &self.state.cluster.options.runtime);
        let delivery = Delivery {
            message: Arc::new(decoded.message),
            defect: decoded.defect,
            token: Token { epoch: 0, position: 0 },
            gate: None,
            fence: None,
            suspect: false,
            anonymous: false,
        };
        let size = record.payload_len() + RECORD_OVERHEAD_BYTES;
        (TopicPartition::new(topic, record.partition()), record.offset(), Record { delivery, size, dated })
    }

    pub(super) fn read_failed(&self, error: KafkaError) {
        let queue = &self.state.queue;
        match error.rdkafka_error_code() {
            // it goes on by itself, and health asks the cluster
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                tracing::debug!(queue, %error, "kafka is out of reach");
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.state.halt(Error::with_source(
                ErrorKind::Backend,
                format!("receive from {queue}: the next messages were removed before they were read"),
                error,
            )),
            _ => {
                let error = failed(format!("receive from {queue}"), error);
                tracing::warn!(queue, ?error, "kafka cannot be read");
                self.state.report(error);
            }
        }
    }
}
