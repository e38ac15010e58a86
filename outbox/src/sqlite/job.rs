//! Jobs of the writer task.

use super::{op::AnyOp, own_sql::OwnTransaction};
use sagabus_core::Result;
use tokio::sync::oneshot;

/// A job of the writer.
pub(crate) enum Job {
    /// Run this in a transaction.
    Op(Box<dyn AnyOp>),
    /// Lend the connection to a handler's own SQL.
    Own(oneshot::Sender<Result<OwnTransaction>>),
    /// Move what is left of the log into the file.
    Checkpoint,
    /// Finish and close.
    Close(oneshot::Sender<()>),
}
