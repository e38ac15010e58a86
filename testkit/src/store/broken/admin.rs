use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{
    AuditEntry, DeadLetter, PendingTimer, Position, PositionReset, Result, SagaRow, StoreAdmin, TimerId, Timestamp,
};
use std::collections::BTreeMap;

#[async_trait]
impl StoreAdmin for Broken {
    async fn dead_letters(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<DeadLetter>> {
        let after = if self.is(Defect::IgnoresAfter) { 0 } else { after };
        self.inner.admin().dead_letters(endpoint, after, limit).await
    }

    async fn retry_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        match self.defect {
            Defect::RetriesNothing => Ok(ids.len() as u64),
            Defect::RetriesTwice => {
                self.inner.admin().retry_dead_letters(endpoint, ids).await?;
                Ok(ids.len() as u64)
            }
            _ => self.inner.admin().retry_dead_letters(endpoint, ids).await,
        }
    }

    async fn discard_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        let endpoint = if self.is(Defect::DiscardsForeign) { "shop" } else { endpoint };
        self.inner.admin().discard_dead_letters(endpoint, ids).await
    }

    async fn timers(&self, endpoint: &str, after: Option<(Timestamp, i64)>, limit: usize) -> Result<Vec<PendingTimer>> {
        self.inner.admin().timers(endpoint, after, limit).await
    }

    async fn move_timer(&self, endpoint: &str, id: TimerId, due: Timestamp) -> Result<bool> {
        if self.is(Defect::MovesNothing) {
            return Ok(true);
        }
        self.inner.admin().move_timer(endpoint, id, due).await
    }

    async fn cancel_timer(&self, endpoint: &str, id: TimerId) -> Result<bool> {
        if self.is(Defect::CancelsNothing) {
            return Ok(true);
        }
        self.inner.admin().cancel_timer(endpoint, id).await
    }

    async fn saga(&self, kind: &str, key: &str) -> Result<Option<SagaRow>> {
        self.inner.admin().saga(kind, key).await
    }

    async fn saga_keys(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<String>> {
        let after = if self.is(Defect::ListsFromTheStart) { "" } else { after };
        self.inner.admin().saga_keys(kind, after, limit).await
    }

    async fn positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        self.inner.admin().positions(self.whose(endpoint)).await
    }

    async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64> {
        if self.is(Defect::ResetsNothing) {
            return Ok(self.inner.admin().positions(endpoint).await?.len() as u64);
        }
        self.inner.admin().reset_positions(self.whose(endpoint), reset).await
    }

    async fn audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        if self.is(Defect::HidesAudit) {
            return Ok(Vec::new());
        }
        let after = if self.is(Defect::IgnoresAfter) { 0 } else { after };
        self.inner.admin().audit(self.whose(endpoint), after, limit).await
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let mut counts = self.inner.admin().counts().await?;
        if self.is(Defect::CountsNothing) {
            counts.values_mut().for_each(|count| *count = 0);
        }
        Ok(counts)
    }
}
