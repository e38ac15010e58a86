//! Who lends transactions to handlers that use their own SQL: desks, each with a connection.
//!
//! A desk begins a transaction and lends it, behind the savepoint `s`: a handler that fails is rolled back to it and harms
//! nobody else. While others wait already, and the bounds below allow, the next one gets the same transaction. Then what
//! all of them did beside their own SQL is applied in one statement, and committed once ([`together`](super::together)).
//!
//! Few desks are enough as long as handlers are quick. When one is not, everybody who waits gets a desk of his own, up to
//! the number of connections, and nothing is shared until handlers have been quick for a while. Whoever exceeds the limit
//! loses: his connection is closed when he gives it back, and those who shared the transaction run again.

use super::{
    error::{Fault, fault},
    open::Inner,
    pool::Conn,
    sql,
    together::{Rider, commit, fail},
    transaction::{Manager, OwnTransaction},
};
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};
use sqlx_core::transaction::TransactionManager as _;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// Most handlers that share a transaction.
const SHARE: usize = 32;
/// A transaction that is older is lent to nobody else.
const AGE: Duration = Duration::from_millis(8);
/// Who holds a transaction longer is slow.
const SLOW: Duration = Duration::from_millis(50);
/// Desks while handlers are quick.
const DESKS: usize = 4;
/// Quick handlers after which transactions are shared by twice as many: at first, and at most, after trouble.
const CALM: [usize; 2] = [16, 4096];

/// Who waits for a transaction.
pub(super) type Reply = oneshot::Sender<Result<OwnTransaction>>;

/// How a connection comes back.
pub(super) enum Returned {
    /// What was done on it is not wanted.
    Dropped(Conn),
    /// With the rest of the unit, and who waits for the commit.
    Finished(Conn, CommitBatch, oneshot::Sender<CommitReply>),
}

/// Who waits, how many desks there are, and how many handlers may share.
pub(crate) struct Sharing(Mutex<State>);

struct State {
    waiting: VecDeque<Reply>,
    desks: usize,
    most_desks: usize,
    share: usize,
    quick: usize,
    calm: usize,
}

impl Sharing {
    pub(crate) fn new(connections: usize) -> Self {
        let (waiting, most_desks) = (VecDeque::new(), connections.max(1));
        Self(Mutex::new(State { waiting, desks: 0, most_desks, share: SHARE, quick: 0, calm: CALM[0] }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues up. Whether a desk has to be opened.
    pub(super) fn ask(&self, reply: Reply) -> bool {
        let mut state = self.state();
        state.waiting.push_back(reply);
        state.open_desk()
    }

    /// Whose turn it is at a desk; none if the desk is to close.
    fn first(&self) -> Option<Reply> {
        let mut state = self.state();
        let next = if state.desks > state.allowed() { None } else { state.next() };
        state.desks -= usize::from(next.is_none());
        next
    }

    /// Who gets the transaction after so many others, if anybody.
    fn another(&self, riders: usize) -> Option<Reply> {
        let mut state = self.state();
        if riders < state.share { state.next() } else { None }
    }

    fn was_quick(&self) {
        let mut state = self.state();
        state.quick += 1;
        if state.quick >= state.calm && state.share < SHARE {
            (state.quick, state.share) = (0, state.share * 2);
            state.calm = (state.calm / 2).max(CALM[0]);
        }
    }

    /// Nobody shares for a while. How many desks have to be opened.
    pub(super) fn trouble(&self) -> usize {
        let mut state = self.state();
        (state.share, state.quick, state.calm) = (1, 0, (state.calm * 4).min(CALM[1]));
        let waiting = state.waiting.len();
        (0..waiting).take_while(|_| state.open_desk()).count()
    }
}

impl State {
    fn allowed(&self) -> usize {
        if self.share == 1 { self.most_desks } else { DESKS.min(self.most_desks) }
    }

    fn open_desk(&mut self) -> bool {
        let open = self.desks < self.allowed();
        self.desks += usize::from(open);
        open
    }

    /// Passes over those who have gone.
    fn next(&mut self) -> Option<Reply> {
        while let Some(reply) = self.waiting.pop_front() {
            if !reply.is_closed() {
                return Some(reply);
            }
        }
        None
    }
}

/// One desk, as long as somebody waits. Boxed, because a desk may have others opened.
pub(super) fn serve(inner: Arc<Inner>) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        while let Some(first) = inner.sharing.first() {
            lend_all(&inner, first).await;
        }
    })
}

/// Handlers do not get on with each other.
pub(super) fn trouble(inner: &Arc<Inner>) {
    for _ in 0..inner.sharing.trouble() {
        inner.runtime().spawn(serve(Arc::clone(inner)));
    }
}

/// One transaction, beginning with this borrower.
async fn lend_all(inner: &Arc<Inner>, first: Reply) {
    let mut conn = match begin(inner).await {
        Ok(conn) => conn,
        // whoever asked may have gone
        Err(error) => return drop(first.send(Err(error))),
    };
    let start = inner.runtime().elapsed();
    let (mut riders, mut next, mut reset) = (Vec::<Rider>::new(), Some(first), false);
    while let Some(reply) = next.take() {
        match lend(inner, conn, reply).await {
            Ok(Returned::Finished(back, batch, answer)) => {
                conn = back;
                riders.push(Rider { batch, answer });
            }
            Ok(Returned::Dropped(back)) => {
                conn = back;
                reset = true;
                if let Err(error) = undo(inner, &mut conn).await {
                    return fail(riders, &error);
                }
            }
            Err(error) => return fail(riders, &error),
        }
        if inner.runtime().elapsed().saturating_sub(start) < AGE {
            next = inner.sharing.another(riders.len());
        }
        if next.is_some()
            && let Err(error) = step(&mut conn, &format!("release s;{};savepoint s", fresh_settings(inner))).await
        {
            // whoever waits asks again
            drop(next.take().map(|reply| reply.send(Err(error.clone()))));
            return fail(riders, &error);
        }
    }
    commit(inner, conn, riders, reset).await;
}

/// Behind a pooler, a session's settings are somebody else's.
fn limits(inner: &Inner) -> String {
    let limit = inner.options.transaction_limit.as_millis();
    format!("set local idle_in_transaction_session_timeout={limit};set local statement_timeout={limit}")
}

/// Whatever the borrower before has set, a role or a tenant perhaps, is not for anybody else.
pub(super) fn fresh_settings(inner: &Inner) -> String {
    match inner.options.pooler {
        true => format!("reset session authorization;reset role;reset all;{}", limits(inner)),
        false => "reset session authorization;reset role;reset all".into(),
    }
}

/// Begins through the driver's own bookkeeping, so that a handler's `begin()` becomes a savepoint.
async fn begin(inner: &Inner) -> Result<Conn> {
    let text = match inner.options.pooler {
        true => format!("begin;{};savepoint s", limits(inner)),
        false => "begin;savepoint s".into(),
    };
    let mut second = false;
    loop {
        let mut conn = inner.own.take().await?;
        let start = Some(AssertSqlSafe(text.clone()).into_sql_str());
        let Some(begun) =
            inner.runtime().timeout(inner.options.statement_limit, Manager::begin(conn.get(), start)).await
        else {
            return Err(Error::new(ErrorKind::Transient, "begin a transaction in postgres: no answer"));
        };
        match begun {
            Ok(()) => return Ok(conn),
            // a connection that had died in the pool; this one is dropped, whatever is open on it
            Err(error) if fault(&error) == Fault::Lost && !second => {
                conn.met(&error);
                second = true;
            }
            Err(error) => return Err(super::error::failed("begin a transaction in postgres", error)),
        }
    }
}

/// Lends the connection, and waits until it comes back.
async fn lend(inner: &Arc<Inner>, conn: Conn, reply: Reply) -> Result<Returned> {
    let (back, mut returned) = oneshot::channel();
    let limit = inner.options.transaction_limit;
    // dropped there or here, it comes back all the same
    drop(reply.send(Ok(OwnTransaction::new(conn, back, limit))));
    let runtime = inner.runtime();
    let back = match runtime.timeout(SLOW.min(limit), &mut returned).await {
        Some(back) => {
            inner.sharing.was_quick();
            Some(back)
        }
        None => {
            trouble(inner);
            runtime.timeout(limit.saturating_sub(SLOW), returned).await
        }
    };
    match back {
        Some(Ok(back)) => Ok(back),
        Some(Err(_)) => Err(Error::new(ErrorKind::Transient, "a handler's transaction was lost")),
        None => {
            tracing::warn!(?limit, "a handler holds its transaction for too long; those who share it run again");
            Err(Error::new(ErrorKind::Transient, format!("a transaction that was shared took longer than {limit:?}")))
        }
    }
}

/// Rolls back to where the borrower began. A statement of his may be under way still: its answer is read first.
async fn undo(inner: &Inner, conn: &mut Conn) -> Result<()> {
    let limit = inner.options.transaction_limit;
    while Manager::get_transaction_depth(conn.get()) > 1 {
        match inner.runtime().timeout(limit, Manager::rollback(conn.get())).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                conn.met(&error);
                return Err(super::error::failed("roll back a handler's transaction", error));
            }
            None => return Err(Error::new(ErrorKind::Transient, "roll back a handler's transaction: no answer")),
        }
    }
    step(conn, "rollback to s").await
}

/// Ends a borrower's savepoint. It fails if he has ended the transaction himself: then nobody knows.
async fn step(conn: &mut Conn, how: &str) -> Result<()> {
    let Err(error) = sql::script(conn, how.into()).await else { return Ok(()) };
    let (kind, text) = match fault(&error) {
        Fault::Lost => (ErrorKind::Transient, "the connection of a handler's transaction was lost"),
        _ => (
            ErrorKind::Unknown,
            "a handler has ended the transaction that it was lent; never commit or roll back by hand",
        ),
    };
    Err(Error::with_source(kind, text, error))
}
