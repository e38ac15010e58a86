//! The queue of handlers that wait for a transaction, and the rules by which they share one.

use super::transaction::Reply;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Handlers that share a transaction at most.
const MAX_SHARED_HANDLERS: usize = 32;
/// Lenders while handlers are quick.
const MAX_LENDERS_WHILE_QUICK: usize = 4;
/// Quick handlers after which transactions are shared by twice as many: at first.
const MIN_QUICK_HANDLERS: usize = 16;
/// The same at most, after trouble.
const MAX_QUICK_HANDLERS: usize = 4096;

/// The handlers that wait, the number of lenders, and how many handlers may share a transaction.
pub(crate) struct Sharing(Mutex<LenderState>);

struct LenderState {
    waiting: VecDeque<Reply>,
    lenders: usize,
    max_lenders: usize,
    max_shared: usize,
    quick: usize,
    quick_needed: usize,
}

impl Sharing {
    pub(crate) fn new(connections: usize) -> Self {
        let (waiting, max_lenders) = (VecDeque::new(), connections.max(1));
        Self(Mutex::new(LenderState {
            waiting,
            lenders: 0,
            max_lenders,
            max_shared: MAX_SHARED_HANDLERS,
            quick: 0,
            quick_needed: MIN_QUICK_HANDLERS,
        }))
    }

    fn state(&self) -> MutexGuard<'_, LenderState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues up. Returns whether a lender has to be started.
    pub(super) fn ask(&self, reply: Reply) -> bool {
        let mut state = self.state();
        state.waiting.push_back(reply);
        state.add_lender()
    }

    /// The next handler for a lender; none if the lender is to end.
    pub(super) fn first(&self) -> Option<Reply> {
        let mut state = self.state();
        let next = if state.lenders > state.allowed() { None } else { state.next() };
        state.lenders -= usize::from(next.is_none());
        next
    }

    /// The next handler for a transaction that so many have used, if it is to be shared further.
    pub(super) fn another(&self, participants: usize) -> Option<Reply> {
        let mut state = self.state();
        if participants < state.max_shared { state.next() } else { None }
    }

    pub(super) fn was_quick(&self) {
        let mut state = self.state();
        state.quick += 1;
        if state.quick >= state.quick_needed && state.max_shared < MAX_SHARED_HANDLERS {
            (state.quick, state.max_shared) = (0, state.max_shared * 2);
            state.quick_needed = (state.quick_needed / 2).max(MIN_QUICK_HANDLERS);
        }
    }

    /// Ends sharing for a while. Returns how many lenders have to be started.
    pub(super) fn stop_sharing(&self) -> usize {
        let mut state = self.state();
        (state.max_shared, state.quick, state.quick_needed) = (1, 0, (state.quick_needed * 4).min(MAX_QUICK_HANDLERS));
        let waiting = state.waiting.len();
        (0..waiting).take_while(|_| state.add_lender()).count()
    }
}

impl LenderState {
    fn allowed(&self) -> usize {
        if self.max_shared == 1 { self.max_lenders } else { MAX_LENDERS_WHILE_QUICK.min(self.max_lenders) }
    }

    fn add_lender(&mut self) -> bool {
        let open = self.lenders < self.allowed();
        self.lenders += usize::from(open);
        open
    }

    /// Skips handlers that have gone.
    fn next(&mut self) -> Option<Reply> {
        while let Some(reply) = self.waiting.pop_front() {
            if !reply.is_closed() {
                return Some(reply);
            }
        }
        None
    }
}
