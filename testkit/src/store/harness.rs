use async_trait::async_trait;
use sagabus_core::{Runtime, Store};
use std::{any::Any, sync::Arc};

/// What a backend brings to the conformance suite.
#[async_trait]
pub trait StoreHarness: Send + Sync + 'static {
    /// A fresh database, migrated, that nobody else sees.
    async fn open(&self) -> Arc<dyn Store>;

    /// A second handle on the same database, as another process would have.
    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store>;

    /// Whether handlers can have own SQL. If not, the suite tests that `begin` refuses.
    fn own_sql(&self) -> bool;

    /// Writes an own row inside the transaction whose [`raw`](sagabus_core::Transaction::raw) connection this is.
    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str);

    /// Reads an own row.
    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String>;

    /// The case is over: drop the database.
    async fn close(&self, store: Arc<dyn Store>);

    /// Where the suite takes time and ids from. A simulated one saves the waits.
    fn runtime(&self) -> Runtime {
        Runtime::system()
    }
}
