//! Operations: what a job of the writer does within a transaction, and how its answer gets back.

use super::{open::Inner, tx::Tx, writer::Job};
use futures::future::BoxFuture;
use sagabus_core::{Error, ErrorKind, Result};
use std::{future::Future, sync::atomic::Ordering};
use tokio::sync::oneshot;

/// How an operation's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Done, if the transaction commits.
    Done,
    /// It cannot go through as it is, and must not share a savepoint: run it again with one of its own.
    Again,
    /// It failed, and keeps its error.
    Failed,
}

/// Why an operation's run did not end well.
pub(crate) enum Stop {
    /// See [`Flow::Again`].
    Again,
    /// The answer.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
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
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<Self::Answer, Stop>>;
}

/// An [`Op`] whatever its answer.
pub(crate) trait AnyOp: Send {
    fn weight(&self) -> usize;
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Flow>;
    /// The transaction has ended so.
    fn answer(self: Box<Self>, committed: Result<()>);
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

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Flow> {
        Box::pin(async move {
            match self.op.run(tx).await {
                Ok(answer) => {
                    self.answer = Some(Ok(answer));
                    Flow::Done
                }
                Err(Stop::Again) => Flow::Again,
                Err(Stop::Failed(error)) => {
                    self.answer = Some(Err(error));
                    Flow::Failed
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
        // whoever asked may have gone
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

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<A, Stop>> {
        let running = (self.0)(tx);
        Box::pin(async move { running.await.map_err(Stop::Failed) })
    }
}

impl Inner {
    /// Hands an operation to the writer and waits for its commit.
    pub(crate) async fn submit<O: Op>(&self, op: O) -> Result<O::Answer> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Op(Box::new(Pending { op, answer: None, reply }))).await?;
        answer.await.map_err(|_| Error::new(ErrorKind::Unknown, format!("the writer of {} ended", self.id.0)))?
    }

    /// The same for a closure.
    pub(crate) fn write<A: Send + 'static>(
        &self,
        op: impl for<'a> FnMut(&'a mut Tx) -> BoxFuture<'a, Result<A>> + Send + 'static,
    ) -> impl Future<Output = Result<A>> + Send {
        self.submit(Write(op))
    }

    pub(crate) async fn send(&self, job: Job) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.gone());
        }
        self.jobs.send(job).await.map_err(|_| self.gone())
    }

    pub(crate) fn gone(&self) -> Error {
        Error::closed(format!("the store {} is closed", self.id.0))
    }
}
