use crate::{CommitBatch, CommitReply};
use async_trait::async_trait;
use std::{any::Any, time::Duration};

/// A handler's own database transaction, open.
///
/// It holds the unit's own SQL. Dropping it rolls back. `sagabus` gives it a typed face
/// (`ctx.transaction::<Sqlite>()`), which casts [`raw`](Transaction::raw) to the database's connection.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// The backend's connection, for a downcast: `sqlx::SqliteConnection`, `sqlx::PgConnection`, or the memory store's
    /// `ScratchRows`.
    fn raw(&mut self) -> &mut (dyn Any + Send);

    /// How long it may be held. The endpoint drops a handler that holds it longer, which rolls back and counts as a
    /// failure; the backend may have taken it back by then.
    fn limit(&self) -> Option<Duration> {
        None
    }

    /// Applies the batch's one unit in this transaction, gate last, and commits. Anything but Applied rolls the own SQL
    /// back too. Transactions that are finished at about the same time may share a commit, but never a failure.
    async fn finish(self: Box<Self>, batch: CommitBatch) -> CommitReply;
}
