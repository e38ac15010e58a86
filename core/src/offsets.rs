//! The committed progress of an endpoint in the partitions of a log, kept beside the effects of the handled messages.

use crate::{Result, Timestamp};
use async_trait::async_trait;
use std::{fmt, sync::Arc};

/// A store for the progress of receivers in a log, such as a Kafka topic, whose own offsets others can set back.
///
/// A log keeps what was handled, and a group's offset there can be set to anything, by anybody. The store's own mark
/// (`handled_below`) says below which offset everything was handled: so a replay that nobody has asked for is noticed, also when the inbox has
/// long forgotten the messages.
///
/// It is written lazily, once a second or so, and only for what the log itself says is committed. So the mark is never ahead
/// of the committed offset in normal life, however often processes are killed; the inbox knows what lies between. Whatever
/// is below the mark when a partition is taken over was set back, or is another log.
#[async_trait]
pub trait OffsetStore: Send + Sync {
    /// Takes partitions over: answers what is known of each, in order, under a new epoch. What an earlier owner
    /// [advances](OffsetStore::advance) from now on is refused. One that was never claimed begins at 0.
    async fn claim(&self, endpoint: &str, partitions: &[LogPartition]) -> Result<Vec<Position>>;

    /// Advances the marks, each under its epoch; a mark never falls. False where the epoch is not the present one: somebody else
    /// has claimed the partition, or an operator has reset it.
    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>>;
}

impl fmt::Debug for dyn OffsetStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OffsetStore")
    }
}

/// One partition of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPartition {
    /// The log, by a name that the transport chooses, such as `kafka:` and the topic.
    pub log: Arc<str>,
    /// Its partition.
    pub partition: i32,
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.log, self.partition)
    }
}

/// How far an endpoint has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: LogPartition,
    /// The offset below which everything was handled; 0 says nothing.
    pub handled_below: i64,
    /// The owner's epoch; it grows whenever the partition changes hands.
    pub epoch: i64,
    /// The transport's fingerprint of a record below the mark, which tells a recreated log apart; may be empty.
    pub fingerprint: String,
}

/// An operator's decision that messages are to be handled again: see
/// [`StoreAdmin::reset_positions`](crate::StoreAdmin::reset_positions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionReset {
    /// The log.
    pub log: String,
    /// One of its partitions; `None` for all.
    pub partition: Option<i32>,
    /// The new mark. A mark below it stays: this can allow a replay, and forbid none.
    pub to: i64,
    /// Who has decided.
    pub by: String,
    /// And why.
    pub why: String,
}

/// Something that an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its row.
    pub id: i64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What: `position reset`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What was there.
    pub before: String,
    /// What is there since.
    pub after: String,
    /// Why.
    pub why: String,
}

/// [`AuditEntry::action`] of a position that was reset.
pub const POSITION_RESET: &str = "position reset";
