//! The attempts that wait to be counted.

use sagabus_core::{MessageId, Result};
use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Messages that one statement counts, at most.
const MAX_ROWS_PER_STATEMENT: usize = 500;

/// A row, in the order in which statements lock rows: so two processes that count the same never wait in a circle.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) message: MessageId,
    pub(super) handler: String,
    pub(super) endpoint: String,
}

pub(super) type Answer = oneshot::Sender<Result<u32>>;

/// What one statement counts: each row once.
pub(super) type Batch = BTreeMap<Key, Answer>;

/// The attempts that are to be counted.
#[derive(Default)]
pub(super) struct Attempts {
    state: Mutex<AttemptQueue>,
    /// For the planted bug `attempts-in-memory` only.
    forgetful: Mutex<HashMap<Key, u32>>,
}

#[derive(Default)]
struct AttemptQueue {
    waiting: VecDeque<(Key, Answer)>,
    /// The task that counts runs, until nothing waits.
    busy: bool,
}

impl Attempts {
    fn state(&self) -> MutexGuard<'_, AttemptQueue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues up. Returns whether the task that counts has to be started.
    pub(super) fn ask(&self, key: Key, answer: Answer) -> bool {
        let mut state = self.state();
        state.waiting.push_back((key, answer));
        !std::mem::replace(&mut state.busy, true)
    }

    /// The next batch; none, and the counting has ended, if nothing waits.
    pub(super) fn next(&self) -> Option<Batch> {
        let mut state = self.state();
        let (mut batch, mut again) = (Batch::new(), VecDeque::new());
        while batch.len() < MAX_ROWS_PER_STATEMENT {
            let Some((key, answer)) = state.waiting.pop_front() else { break };
            if answer.is_closed() {
                continue;
            }
            match batch.entry(key) {
                Entry::Vacant(slot) => drop(slot.insert(answer)),
                // each call counts one, and a statement changes a row once
                Entry::Occupied(slot) => again.push_back((slot.key().clone(), answer)),
            }
        }
        again.append(&mut state.waiting);
        state.waiting = again;
        state.busy = !batch.is_empty();
        state.busy.then_some(batch)
    }

    /// Drops all who wait: the task that counts has ended.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.busy = false;
    }

    pub(super) fn forget(&self, key: Key) -> u32 {
        let mut counts = self.forgetful.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        *count += 1;
        *count
    }
}
