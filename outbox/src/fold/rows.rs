//! The rows that a folded batch adds.

use sagabus_core::{Due, Envelope, InstanceId, Outgoing, SagaAddress, TimerId, shard_of};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// A message that is sent.
pub(crate) struct FoldedSend<'b> {
    /// The index of its unit in the batch.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "only the sqlite store reads it"))]
    pub(crate) unit: usize,
    pub(crate) outgoing: &'b Outgoing,
    /// See [`UnitOfWork::fresh_ids`](sagabus_core::UnitOfWork::fresh_ids).
    pub(crate) fresh_id: bool,
}

/// A further correlation value of a saga.
pub(crate) struct Alias<'b> {
    pub(crate) kind: &'b Arc<str>,
    pub(crate) key: &'b str,
    pub(crate) instance: InstanceId,
    pub(crate) name: &'b str,
    pub(crate) value: &'b str,
}

/// A timer to insert.
pub(crate) struct NewTimer<'b> {
    pub(crate) handler: &'b Arc<str>,
    pub(crate) id: TimerId,
    pub(crate) due: Due,
    pub(crate) message: &'b Envelope,
}

impl NewTimer<'_> {
    /// Whether the timer is of a saga, of any of its instances or of this one.
    pub(super) fn is_of(&self, kind: &str, key: &str, instance: Option<InstanceId>) -> bool {
        let same = |saga: &SagaAddress| {
            saga.kind == kind && saga.key == key && instance.is_none_or(|instance| saga.instance == instance)
        };
        self.message.headers.saga.as_ref().is_some_and(same)
    }
}

/// A row of `retry`.
pub(crate) struct RetryRow<'b> {
    pub(crate) handler: &'b Arc<str>,
    pub(crate) message: &'b Envelope,
    pub(crate) key: Option<&'b str>,
    pub(crate) attempts: u32,
    /// From the commit until it is due.
    pub(crate) delay: Duration,
    pub(crate) reason: &'b str,
}

/// A row of `dead_letter`.
pub(crate) struct DeadLetterRow<'b> {
    pub(crate) handler: &'b Arc<str>,
    pub(crate) message: &'b Envelope,
    pub(crate) attempts: u32,
    pub(crate) reason: Cow<'b, str>,
    pub(crate) detail: Cow<'b, [String]>,
}

/// A row of `parked`.
pub(crate) struct ParkedRow<'b> {
    pub(crate) handler: &'b Arc<str>,
    pub(crate) message: &'b Envelope,
    pub(crate) attempts: u32,
    /// The order key that an earlier message blocks.
    pub(crate) blocked_key: Option<&'b str>,
    /// The (kind, key) of the saga that it waits for.
    pub(crate) saga: Option<(&'b Arc<str>, &'b str)>,
    /// From the commit until it is due; 0 for a message whose saga is created by this batch.
    pub(crate) delay: Duration,
    /// The saga may exist already: only the database knows.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "the sqlite store always asks"))]
    pub(crate) ask: bool,
}

/// The shard of a row of the due tables: of its order key, or of its saga's key, or of its message.
pub(crate) fn shard_of_row(key: Option<&str>, message: &Envelope) -> u16 {
    let headers = &message.headers;
    let key = key.or(headers.order_key.as_deref()).or(headers.saga.as_ref().map(|saga| saga.key.as_str()));
    match key {
        Some(key) => shard_of(key.as_bytes()),
        None => shard_of(headers.message_id.0.as_bytes()),
    }
}

/// The shard of a queue's row: of its order key, or of its message.
pub(crate) fn shard_of_queued(message: &Envelope) -> u16 {
    match &message.headers.order_key {
        Some(key) => shard_of(key.as_bytes()),
        None => shard_of(message.headers.message_id.0.as_bytes()),
    }
}
