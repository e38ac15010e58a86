//! Settled rows, removed in batches.

use super::{handing::row_id, receiver::Shared};
use crate::lock;
use sagabus_core::{Result, Token};
use std::sync::Mutex;

/// What is settled as done and not yet deleted. One delete runs at a time; what is settled meanwhile goes with the next
/// one, so that many settlements cost few transactions.
#[derive(Default)]
pub(super) struct Deletes {
    pending: Mutex<Vec<Token>>,
    turn: tokio::sync::Mutex<()>,
}

/// Most rows of one delete.
const BATCH: usize = 2000;

impl Deletes {
    pub(super) fn add(&self, tokens: Vec<Token>) {
        lock(&self.pending).extend(tokens);
    }

    /// Returns when everything added before is deleted. After an error, or when cancelled, it is pending again.
    pub(super) async fn flush(&self, shared: &Shared) -> Result<()> {
        let _turn = self.turn.lock().await;
        loop {
            let mut batch = Batch { deletes: self, tokens: std::mem::take(&mut *lock(&self.pending)) };
            if batch.tokens.is_empty() {
                return Ok(());
            }
            if batch.tokens.len() > BATCH {
                lock(&self.pending).extend(batch.tokens.drain(BATCH..));
            }
            let ids: Vec<i64> = batch.tokens.iter().map(|token| row_id(*token)).collect();
            shared.queues.delete(&shared.options.queue, &ids).await?;
            lock(&shared.desk).finish(&batch.tokens);
            shared.arrived.notify_waiters();
            batch.tokens.clear();
        }
    }
}

/// Puts its tokens back when it is dropped before the delete went through.
struct Batch<'a> {
    deletes: &'a Deletes,
    tokens: Vec<Token>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.tokens.is_empty() {
            lock(&self.deletes.pending).append(&mut self.tokens);
        }
    }
}
