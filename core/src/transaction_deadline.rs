//! The time limit of a handler's own transaction.

use crate::Runtime;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Notify;

/// The time limit of a handler's own transaction, known to the endpoint as soon as the transaction is open.
#[derive(Clone, Debug, Default)]
pub struct TransactionDeadline(Arc<DeadlineInner>);

#[derive(Debug, Default)]
struct DeadlineInner {
    limit: OnceLock<Duration>,
    started: Notify,
}

impl TransactionDeadline {
    pub(crate) fn start(&self, limit: Duration) {
        // only the first transaction of a run counts: there is no second one
        let _ = self.0.limit.set(limit);
        self.0.started.notify_one();
    }

    /// Ends when a transaction has been held for its limit, with the limit; never without one. For one waiter.
    pub async fn exceeded(&self, runtime: &Runtime) -> Duration {
        loop {
            if let Some(limit) = self.0.limit.get() {
                runtime.sleep(*limit).await;
                return *limit;
            }
            self.0.started.notified().await;
        }
    }
}
