//! Events of the engine.

use super::keys::UnitId;
use sagabus_core::{
    CommitReply, Delivery, DueRow, HandlerError, InvocationResult, LoadReply, OutboxId, Result, SagaRow,
};

/// An event of the engine; it takes them one after another.
pub(crate) enum Event {
    /// The transport has deliveries.
    Deliveries(Vec<Delivery>),
    /// Rows are due.
    Due(Vec<DueRow>),
    /// A load has come back.
    Loaded(Result<LoadReply>),
    /// Handlers are done.
    HandlersRan(Vec<HandlerRan>),
    /// A failure is counted: how many there are since the counter's row was made, if the store could tell.
    FailureCounted { unit: UnitId, failures: Option<u32>, error: HandlerError },
    /// A suspect is counted and may run, on this saga.
    SuspectCounted { unit: UnitId, saga: Option<Box<SagaRow>>, deaths: Option<u32> },
    /// A retry's pause is over.
    Retry { unit: UnitId },
    /// A committer is done.
    Committed { committer: usize, units: Vec<UnitId>, sent: Vec<OutboxId>, reply: CommitReply },
    /// A unit with its own transaction is done.
    OwnTransactionDone { unit: UnitId, reply: CommitReply },
    /// A pause after a failure of the store is over.
    StorePauseOver,
    /// The slow-down's pause is over.
    SlowPauseOver,
    /// The dispatcher has sent a batch.
    Dispatched,
    /// A batch that waits for company has waited long enough.
    LingerOver,
    /// The dispatcher's backlog is full, or no longer full.
    Backlog(bool),
    /// Stop: hand back what has not started, finish the rest.
    Stop,
}

/// A handler that has run; an error is the text of a panic, or that it was dropped.
pub(crate) struct HandlerRan {
    pub(crate) unit: UnitId,
    /// The epoch of the lane when the handler started.
    pub(crate) epoch: u64,
    pub(crate) output: std::result::Result<Box<InvocationResult>, String>,
}
