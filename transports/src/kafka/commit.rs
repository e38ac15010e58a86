//! A commit of offsets, and its outcome.

use super::{offset_tracker::OffsetNote, topic_partition::TopicPartition};
use rdkafka::error::KafkaError;

/// The note to commit of one partition.
#[derive(Clone)]
pub(super) struct Commit {
    /// The number of the assignment.
    pub(super) assignment: u64,
    pub(super) partition: TopicPartition,
    pub(super) note: OffsetNote,
}

/// The outcome of a commit of several partitions.
pub(super) struct CommitOutcome {
    pub(super) outcome: Result<(), KafkaError>,
    /// If that was asked for: the offsets that the group has now, by the number of the assignment.
    pub(super) group_offsets: Vec<(u64, i64)>,
}
