//! The admin of an endpoint without a store: refuses each question, with the reason.

use async_trait::async_trait;
use sagabus_core::{
    AuditEntry, DeadLetter, Error, PendingTimer, Position, PositionReset, Result, SagaRow, StoreAdmin, TimerId,
    Timestamp,
};
use std::collections::BTreeMap;

pub(super) struct NoAdmin {
    pub(super) endpoint: String,
}

impl NoAdmin {
    fn refuse<T>(&self, what: &str) -> Result<T> {
        Err(Error::unsupported(format!(
            "{what}: endpoint {0} has no store. What is delayed waits on its transport, which can neither list nor cancel it; \
             its dead letters are in the queue {0}.error",
            self.endpoint
        )))
    }
}

#[async_trait]
impl StoreAdmin for NoAdmin {
    async fn dead_letters(&self, _: &str, _: i64, _: usize) -> Result<Vec<DeadLetter>> {
        self.refuse("list dead letters")
    }

    async fn retry_dead_letters(&self, _: &str, _: &[i64]) -> Result<u64> {
        self.refuse("retry dead letters")
    }

    async fn discard_dead_letters(&self, _: &str, _: &[i64]) -> Result<u64> {
        self.refuse("discard dead letters")
    }

    async fn timers(&self, _: &str, _: Option<(Timestamp, i64)>, _: usize) -> Result<Vec<PendingTimer>> {
        self.refuse("list timers")
    }

    async fn move_timer(&self, _: &str, id: TimerId, _: Timestamp) -> Result<bool> {
        self.refuse(&format!("move timer {id}"))
    }

    async fn cancel_timer(&self, _: &str, id: TimerId) -> Result<bool> {
        self.refuse(&format!("cancel timer {id}"))
    }

    async fn saga(&self, kind: &str, _: &str) -> Result<Option<SagaRow>> {
        self.refuse(&format!("look at a saga {kind}"))
    }

    async fn saga_keys(&self, kind: &str, _: &str, _: usize) -> Result<Vec<String>> {
        self.refuse(&format!("list the sagas {kind}"))
    }

    async fn positions(&self, _: &str) -> Result<Vec<Position>> {
        self.refuse("list positions")
    }

    async fn reset_positions(&self, _: &str, _: &PositionReset) -> Result<u64> {
        self.refuse("reset positions")
    }

    async fn audit(&self, _: &str, _: i64, _: usize) -> Result<Vec<AuditEntry>> {
        self.refuse("list what operators did")
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        self.refuse("count rows")
    }
}
