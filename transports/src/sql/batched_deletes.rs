//! Settled rows, removed in batches.

use super::{shared::ReceiverState, token::row_id};
use crate::lock;
use sagabus_core::{Result, Token};
use std::sync::Mutex;

/// What is settled as done and not yet deleted. One delete runs at a time; what is settled meanwhile goes with the next
/// one, so that many settlements cost few transactions.
#[derive(Default)]
pub(super) struct BatchedDeletes {
    pending: Mutex<Vec<Token>>,
    flushing: tokio::sync::Mutex<()>,
}

/// Most rows of one delete.
const MAX_ROWS_PER_DELETE: usize = 2000;

impl BatchedDeletes {
    pub(super) fn add(&self, tokens: Vec<Token>) {
        lock(&self.pending).extend(tokens);
    }

    /// Returns when everything added before is deleted. After an error, or when cancelled, it is pending again.
    pub(super) async fn flush(&self, shared: &ReceiverState) -> Result<()> {
        let _flushing = self.flushing.lock().await;
        loop {
            let mut batch = Batch { deletes: self, tokens: std::mem::take(&mut *lock(&self.pending)) };
            if batch.tokens.is_empty() {
                return Ok(());
            }
            if batch.tokens.len() > MAX_ROWS_PER_DELETE {
                lock(&self.pending).extend(batch.tokens.drain(MAX_ROWS_PER_DELETE..));
            }
            let ids: Vec<i64> = batch.tokens.iter().map(|token| row_id(*token)).collect();
            shared.queues.delete(&shared.options.queue, &ids).await?;
            lock(&shared.read_ahead).finish(&batch.tokens);
            shared.arrived.notify_waiters();
            batch.tokens.clear();
        }
    }
}

/// Puts its tokens back when it is dropped before the delete went through.
struct Batch<'a> {
    deletes: &'a BatchedDeletes,
    tokens: Vec<Token>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.tokens.is_empty() {
            lock(&self.deletes.pending).append(&mut self.tokens);
        }
    }
}
