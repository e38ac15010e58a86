//! Looking into an endpoint's store and operating on it: dead letters, timers, sagas, positions in logs.

mod cursor;

pub use cursor::{Cursor, Page};
pub use sagabus_core::{
    AuditEntry, DeadLetter, InstanceId, NodeId, PendingTimer, Position, PositionReset, SagaAddress, StoreAdmin, TimerId,
};

use sagabus_core::{Result, SagaRow, Timestamp};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The administration of one endpoint: see [`Endpoint::admin`](crate::Endpoint::admin).
///
/// Every call reads or writes the endpoint's store; an error is the store's. Lists come in pages: pass
/// [`Cursor::start`] first, then each page's [`next`](Page::next).
///
/// ```
/// use sagabus::{admin::Cursor, prelude::*};
///
/// # async fn show(endpoint: &Endpoint) -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let admin = endpoint.admin().ok_or("the endpoint has no store")?;
/// let mut cursor = Some(Cursor::start());
/// while let Some(after) = cursor {
///     let page = admin.dead_letters(&after, 100).await?;
///     let ids: Vec<i64> = page.items.iter().map(|letter| letter.id).collect();
///     admin.retry_dead_letters(&ids).await?;
///     cursor = page.next;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EndpointAdmin {
    endpoint: Arc<str>,
    store: Arc<dyn StoreAdmin>,
}

impl fmt::Debug for EndpointAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointAdmin").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl EndpointAdmin {
    pub(crate) fn new(endpoint: Arc<str>, store: Arc<dyn StoreAdmin>) -> Self {
        Self { endpoint, store }
    }

    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// [Invalid](crate::Error::is_invalid) for a cursor of another list; otherwise the store's error.
    pub async fn dead_letters(&self, after: &Cursor, limit: usize) -> Result<Page<DeadLetter>> {
        let rows = self.store.dead_letters(&self.endpoint, after.id()?, limit).await?;
        Ok(Page::new(rows, limit, |letter| Cursor::after_id(letter.id)))
    }

    /// Sends dead letters again: each becomes due at once. A second call for the same one does nothing. Returns the number
    /// of letters that are sent again.
    ///
    /// # Errors
    /// The store's error; nothing was sent then.
    pub async fn retry_dead_letters(&self, ids: &[i64]) -> Result<u64> {
        self.store.retry_dead_letters(&self.endpoint, ids).await
    }

    /// Removes dead letters for good. Returns the number of removed letters.
    ///
    /// # Errors
    /// The store's error; nothing was removed then.
    pub async fn discard_dead_letters(&self, ids: &[i64]) -> Result<u64> {
        self.store.discard_dead_letters(&self.endpoint, ids).await
    }

    /// The timers that have not taken effect yet, by due time.
    ///
    /// # Errors
    /// [Invalid](crate::Error::is_invalid) for a cursor of another list; otherwise the store's error.
    pub async fn timers(&self, after: &Cursor, limit: usize) -> Result<Page<PendingTimer>> {
        let timers = self.store.timers(&self.endpoint, after.due()?, limit).await?;
        Ok(Page::new(timers, limit, |timer| Cursor::after_due(timer.due, timer.row)))
    }

    /// Moves a timer to another due time, by the database's clock. False if there is no such timer.
    ///
    /// # Errors
    /// The store's error; the timer is unchanged then.
    pub async fn move_timer(&self, id: TimerId, due: Timestamp) -> Result<bool> {
        self.store.move_timer(&self.endpoint, id, due).await
    }

    /// Cancels a timer. False if there is no such timer.
    ///
    /// # Errors
    /// The store's error; the timer is unchanged then.
    pub async fn cancel_timer(&self, id: TimerId) -> Result<bool> {
        self.store.cancel_timer(&self.endpoint, id).await
    }

    /// One saga of this endpoint, by the saga's name and its correlation value.
    ///
    /// # Errors
    /// The store's error.
    pub async fn saga(&self, saga: &str, key: &str) -> Result<Option<SagaRow>> {
        self.store.saga(&self.kind(saga), key).await
    }

    /// The correlation values of a saga's instances, in order.
    ///
    /// # Errors
    /// [Invalid](crate::Error::is_invalid) for a cursor of another list; otherwise the store's error.
    pub async fn saga_keys(&self, saga: &str, after: &Cursor, limit: usize) -> Result<Page<String>> {
        let keys = self.store.saga_keys(&self.kind(saga), after.key()?, limit).await?;
        Ok(Page::new(keys, limit, |key| Cursor::after_key(key)))
    }

    /// The endpoint's progress in the partitions of logs (Kafka), in their order.
    ///
    /// # Errors
    /// The store's error.
    pub async fn positions(&self) -> Result<Vec<Position>> {
        self.store.positions(&self.endpoint).await
    }

    /// Allows a replay of a log: lowers the positions and records the operator and the reason. Returns the number of
    /// positions that were lowered.
    ///
    /// # Errors
    /// The store's error; no position was lowered then.
    pub async fn reset_positions(&self, reset: &PositionReset) -> Result<u64> {
        self.store.reset_positions(&self.endpoint, reset).await
    }

    /// The operations that were done to this endpoint, oldest first.
    ///
    /// # Errors
    /// [Invalid](crate::Error::is_invalid) for a cursor of another list; otherwise the store's error.
    pub async fn audit(&self, after: &Cursor, limit: usize) -> Result<Page<AuditEntry>> {
        let entries = self.store.audit(&self.endpoint, after.id()?, limit).await?;
        Ok(Page::new(entries, limit, |entry| Cursor::after_id(entry.id)))
    }

    /// The number of rows in each table of the store, by the table's name. The store may serve other endpoints too.
    ///
    /// # Errors
    /// The store's error.
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        self.store.counts().await
    }

    /// The administration of the whole store, for tools that serve several endpoints.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn StoreAdmin> {
        &self.store
    }

    fn kind(&self, saga: &str) -> String {
        format!("{}/{saga}", self.endpoint)
    }
}
