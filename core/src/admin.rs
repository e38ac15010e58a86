use crate::{
    AuditEntry, Envelope, MessageId, Position, PositionReset, Result, RowTable, SagaAddress, SagaRow, TimerId,
    Timestamp,
};
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Looking into a store and operating on it from outside: what the admin API, the console and the tests stand on.
#[async_trait]
pub trait StoreAdmin: Send + Sync {
    /// Dead letters of an endpoint, newest last, after an id.
    async fn dead_letters(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<DeadLetter>>;

    /// Sends dead letters again: each becomes due at once, as a delivery with its row as the gate. A second call for the
    /// same one does nothing. Returns how many.
    async fn retry_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64>;

    /// Removes dead letters for good. Returns how many.
    async fn discard_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64>;

    /// Timers of an endpoint that have not taken effect yet, by (due, row), after a (due, row) of an earlier page.
    async fn timers(&self, endpoint: &str, after: Option<(Timestamp, i64)>, limit: usize) -> Result<Vec<PendingTimer>>;

    /// Moves a timer. A reading under the old time cannot take effect any more. False if there is no such timer.
    async fn move_timer(&self, endpoint: &str, id: TimerId, due: Timestamp) -> Result<bool>;

    /// Cancels a timer. False if there is no such timer.
    async fn cancel_timer(&self, endpoint: &str, id: TimerId) -> Result<bool>;

    /// One saga.
    async fn saga(&self, kind: &str, key: &str) -> Result<Option<SagaRow>>;

    /// Keys of the sagas of a kind, in order, after a key.
    async fn saga_keys(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<String>>;

    /// How far an endpoint has come in the partitions of logs, in their order.
    async fn positions(&self, endpoint: &str) -> Result<Vec<Position>>;

    /// Allows a replay: lowers bases, under new epochs and without their marks, and writes down who did it and why. What
    /// those partitions' owners raise is refused until they are claimed again. Returns how many there were.
    async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64>;

    /// What operators did to an endpoint, oldest first, after an id.
    async fn audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>>;

    /// How many rows each table holds, by the table's name.
    async fn counts(&self) -> Result<BTreeMap<String, u64>>;
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its row.
    pub id: i64,
    /// The handler that could not handle it; empty for one that no handler was found for.
    pub handler: String,
    /// When it was buried, by the database's clock.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// Why, in a line.
    pub reason: String,
    /// The error and its causes.
    pub detail: Vec<String>,
    /// Whether it has been sent again and waits to be handled.
    pub retrying: bool,
    /// The message as it came.
    pub message: Envelope,
}

/// A timer that has not taken effect yet.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingTimer {
    /// Its id.
    pub id: TimerId,
    /// Its row: with `due`, the place of the next page.
    pub row: i64,
    /// When, by the database's clock.
    pub due: Timestamp,
    /// Whose.
    pub saga: Option<SagaAddress>,
    /// The timeout's wire name.
    pub message_type: String,
    /// The message.
    pub message_id: MessageId,
}

/// The tables that [`StoreAdmin::counts`] names at least.
pub fn counted_tables() -> Vec<&'static str> {
    let mut names = vec![
        "saga",
        "saga_alias",
        "inbox",
        "inbox_misc",
        "outbox",
        "attempt",
        "node",
        "log_position",
        "operator_audit",
    ];
    names.push(RowTable::Queue.name());
    names.extend(RowTable::DUE.map(RowTable::name));
    names
}
