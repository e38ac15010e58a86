use super::{handler_tasks::HandlerRan, unit::UnitId};
use sagabus_core::{CommitReply, Delivery, DueRow, HandlerError, LoadReply, OutboxId, Result, SagaRow};

/// What happens to an engine, one after another.
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
    StoreAgain,
    /// The slow-down's pause is over.
    SlowAgain,
    /// The dispatcher has sent a batch.
    Dispatched,
    /// A batch that waits for company has waited long enough.
    Lingered,
    /// The dispatcher's backlog is full, or no longer full.
    Backlog(bool),
    /// Stop: hand back what has not started, finish the rest.
    Stop,
}
