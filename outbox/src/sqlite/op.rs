//! Operations: what a job of the writer does within a transaction, and how its answer gets back.

use super::write_context::Tx;
use futures::future::BoxFuture;
use sagabus_core::{Error, Result};
use tokio::sync::oneshot;

/// The end of an operation's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpOutcome {
    /// Done, if the transaction commits.
    Done,
    /// It cannot go through as it is, and must not share a savepoint: run it again with one of its own.
    Again,
    /// It failed, and keeps its error.
    Failed,
}

/// The reason why an operation's run did not end well.
pub(crate) enum OpError {
    /// See [`OpOutcome::Again`].
    Again,
    /// The answer.
    Failed(Error),
}

impl From<Error> for OpError {
    fn from(error: Error) -> Self {
        OpError::Failed(error)
    }
}

/// Something done in a write transaction. It may run twice: what the first run did is rolled back then.
pub(crate) trait Op: Send + 'static {
    /// What comes of it.
    type Answer: Send + 'static;

    /// About how many rows it writes.
    fn weight(&self) -> usize {
        1
    }

    /// Does it.
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<Self::Answer, OpError>>;
}

/// An [`Op`] whatever its answer.
pub(crate) trait AnyOp: Send {
    fn weight(&self) -> usize;
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, OpOutcome>;
    /// The transaction has ended so.
    fn answer(self: Box<Self>, committed: Result<()>);
}

/// An operation that waits for its transaction's end, and the channel for its answer.
pub(crate) fn pending<O: Op>(op: O, reply: oneshot::Sender<Result<O::Answer>>) -> Box<dyn AnyOp> {
    Box::new(Pending { op, answer: None, reply })
}

struct Pending<O: Op> {
    op: O,
    answer: Option<Result<O::Answer>>,
    reply: oneshot::Sender<Result<O::Answer>>,
}

impl<O: Op> AnyOp for Pending<O> {
    fn weight(&self) -> usize {
        self.op.weight()
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, OpOutcome> {
        Box::pin(async move {
            match self.op.run(tx).await {
                Ok(answer) => {
                    self.answer = Some(Ok(answer));
                    OpOutcome::Done
                }
                Err(OpError::Again) => OpOutcome::Again,
                Err(OpError::Failed(error)) => {
                    self.answer = Some(Err(error));
                    OpOutcome::Failed
                }
            }
        })
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let answer = match (committed, self.answer) {
            // its own error says more than that of the transaction, and nothing of it was done
            (_, Some(Err(error))) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(()), Some(Ok(answer))) => Ok(answer),
            (Ok(()), None) => Err(Error::closed("the operation never ran")),
        };
        // the caller may have gone
        let _ = self.reply.send(answer);
    }
}

/// An operation as a closure.
pub(crate) struct Write<F>(pub(crate) F);

impl<F, A> Op for Write<F>
where
    F: for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<A>> + Send + 'static,
    A: Send + 'static,
{
    type Answer = A;

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<A, OpError>> {
        let running = (self.0)(tx);
        Box::pin(async move { running.await.map_err(OpError::Failed) })
    }
}
