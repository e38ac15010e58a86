//! The check for recreated topics: reads the records at the remembered fingerprints, and compares them.

use super::{
    cluster::QUERY_TIMEOUT, decode::decode, error::failed, fingerprint::Fingerprint, metadata_context::MetadataContext,
    shared::ReceiverState, topic_partition::TopicPartition,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Message},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How long one poll for a record waits.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The partitions where another message lies at the offset of the fingerprint now. The offsets must lie within what the
/// topics hold.
pub(super) fn recreated(
    state: &ReceiverState,
    fingerprints: &HashMap<TopicPartition, Fingerprint>,
) -> Result<HashSet<TopicPartition>> {
    let mut by_topic: HashMap<&str, HashMap<i32, (&TopicPartition, &Fingerprint)>> = HashMap::new();
    for (partition, fingerprint) in fingerprints {
        by_topic.entry(&partition.topic).or_default().insert(partition.partition, (partition, fingerprint));
    }
    let mut recreated = HashSet::new();
    if by_topic.is_empty() {
        return Ok(recreated);
    }
    let reader = state.cluster.record_sampler(&state.cluster.names.group(&state.queue))?;
    // one by one, since the end of a partition is told without its topic
    for (topic, mut unread) in by_topic {
        recreated.extend(recreated_of(state, &reader, topic, &mut unread)?.into_iter().cloned());
    }
    Ok(recreated)
}

fn recreated_of<'a>(
    state: &ReceiverState,
    reader: &BaseConsumer<MetadataContext>,
    topic: &str,
    unread: &mut HashMap<i32, (&'a TopicPartition, &Fingerprint)>,
) -> Result<Vec<&'a TopicPartition>> {
    let runtime = &state.cluster.options.runtime;
    let context = || format!("look at what {} has handled of topic {topic}", state.queue);
    let mut list = TopicPartitionList::with_capacity(unread.len());
    for (partition, (_, fingerprint)) in &*unread {
        let offset = Offset::Offset(fingerprint.offset);
        list.add_partition_offset(topic, *partition, offset).map_err(|e| failed(context(), e))?;
    }
    reader.assign(&list).map_err(|e| failed(context(), e))?;
    let (start, mut recreated) = (runtime.elapsed(), Vec::new());
    while !unread.is_empty() {
        match reader.poll(POLL_TIMEOUT) {
            Some(Ok(record)) => {
                if let Some((partition, fingerprint)) = unread.remove(&record.partition())
                    && fingerprint_of(state, &record) != *fingerprint
                {
                    recreated.push(partition);
                }
                pause(reader, topic, record.partition()).map_err(|e| failed(context(), e))?;
            }
            // nothing is there but what transactions leave behind: not what we have read
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                recreated.extend(unread.remove(&partition).map(|(partition, _)| partition));
                pause(reader, topic, partition).map_err(|e| failed(context(), e))?;
            }
            Some(Err(error)) => return Err(failed(context(), error)),
            None => {}
        }
        if runtime.elapsed() - start > QUERY_TIMEOUT {
            return Err(Error::new(ErrorKind::Transient, format!("{}: no answer in time", context())));
        }
    }
    Ok(recreated)
}

/// Stops reading a partition. Of a batch that is larger than what is asked for, the broker sends the first one in a request
/// only: a partition that goes on reading would keep others from being that.
fn pause(reader: &BaseConsumer<MetadataContext>, topic: &str, partition: i32) -> KafkaResult<()> {
    let mut seen = TopicPartitionList::with_capacity(1);
    seen.add_partition(topic, partition);
    reader.pause(&seen)
}

fn fingerprint_of(state: &ReceiverState, record: &BorrowedMessage<'_>) -> Fingerprint {
    let event = state.topics.get(record.topic()).and_then(Option::as_deref);
    let decoded = decode(record, event, &state.cluster.options.runtime);
    Fingerprint::of(record.offset(), &decoded.message.headers)
}
