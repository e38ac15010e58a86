//! The rows that are handed out: taking them from the read-ahead buffer, and settling them.

use super::{
    read_ahead::{Out, ReadAhead},
    token::{row_id, shard, token},
};
use sagabus_core::{QueueRow, Settle, Settlement, Token};

/// A row on its way out.
pub(super) struct Taken {
    pub(super) row: QueueRow,
    pub(super) token: Token,
    pub(super) epoch: i64,
    pub(super) suspect: bool,
}

/// What settling leaves to do.
#[derive(Default)]
pub(super) struct Settled {
    /// To be deleted, then [finished](ReadAhead::finish).
    pub(super) done: Vec<Token>,
    /// Shards to be released, with their epochs.
    pub(super) release: Vec<(u16, i64)>,
}

impl ReadAhead {
    /// How many more rows the window allows.
    fn room(&self) -> usize {
        self.window.saturating_sub(self.out.len() + self.stale_tokens.len())
    }

    /// Hands out rows.
    pub(super) fn take(&mut self, max: usize) -> Vec<Taken> {
        let count = max.min(self.room()).min(self.ready.len());
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count
            && let Some((id, row)) = self.ready.pop_first()
        {
            let Some(shard_lease) = self.shard_lease_mut(row.shard) else {
                self.known.remove(&id);
                continue;
            };
            shard_lease.out += 1;
            taken.push(Taken {
                token: token(shard_lease.number, row.shard, id),
                epoch: shard_lease.epoch,
                suspect: shard_lease.suspects(id),
                row: row.clone(),
            });
            self.out.insert(id, Out { row, done: false });
        }
        taken
    }

    /// Whether the token names a row that is handed out under the shard lease that still runs.
    fn holds(&self, token: Token) -> bool {
        self.out.contains_key(&row_id(token))
            && self.shard_lease(shard(token)).is_some_and(|t| t.number == token.epoch >> 16)
    }

    /// Settles.
    pub(super) fn settle(&mut self, settlements: &[Settlement]) -> Settled {
        let mut settled = Settled::default();
        for Settlement { token, settle } in settlements {
            if !self.holds(*token) {
                self.stale_tokens.remove(token);
                continue;
            }
            let done = self.out.get(&row_id(*token)).is_some_and(|out| out.done);
            match settle {
                Settle::Done => {
                    if let Some(out) = self.out.get_mut(&row_id(*token)) {
                        out.done = true;
                        settled.done.push(*token);
                    }
                }
                Settle::Committed => self.finish(&[*token]),
                // said to be done before: nothing can bring it back
                Settle::Return if done => {}
                Settle::Return => self.put_back(*token),
            }
        }
        settled.release = self.drained();
        settled
    }

    /// These rows are gone.
    pub(super) fn finish(&mut self, tokens: &[Token]) {
        for token in tokens {
            if !self.holds(*token) {
                self.stale_tokens.remove(token);
                continue;
            }
            let id = row_id(*token);
            self.out.remove(&id);
            self.known.remove(&id);
            if let Some(deleted_during_read) = &mut self.deleted_during_read {
                deleted_during_read.insert(id);
            }
            if let Some(shard_lease) = self.shard_lease_mut(shard(*token)) {
                shard_lease.out -= 1;
            }
        }
    }

    /// Makes a handed out row available again.
    fn put_back(&mut self, token: Token) {
        let Some(Out { row, .. }) = self.out.remove(&row_id(token)) else { return };
        let stopped = self.stopped;
        let Some(shard_lease) = self.shard_lease_mut(row.shard) else { return };
        shard_lease.out -= 1;
        if stopped || !shard_lease.active() {
            // the next owner reads it
            self.known.remove(&row.id);
        } else {
            self.ready.insert(row.id, row);
        }
    }

    /// Hands out nothing more, and forgets what was not handed out.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        for (_, row) in std::mem::take(&mut self.ready) {
            self.known.remove(&row.id);
        }
    }
}
