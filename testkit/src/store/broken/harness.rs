use super::{Broken, Defect};
use crate::store::StoreHarness;
use async_trait::async_trait;
use sagabus_core::{DatabaseId, Runtime, Store};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Another harness, whose stores have a defect.
pub struct BrokenHarness<H> {
    inner: H,
    defect: Defect,
    open: Mutex<HashMap<DatabaseId, Broken>>,
}

impl<H> std::fmt::Debug for BrokenHarness<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokenHarness").finish_non_exhaustive()
    }
}

impl<H: StoreHarness> BrokenHarness<H> {
    /// Breaks a harness.
    pub fn new(inner: H, defect: Defect) -> Self {
        Self { inner, defect, open: Mutex::default() }
    }
}

#[async_trait]
impl<H: StoreHarness> StoreHarness for BrokenHarness<H> {
    async fn open(&self) -> Arc<dyn Store> {
        let broken = Broken::new(self.inner.open().await, self.defect);
        self.open.lock().expect("lock").insert(broken.inner.database().clone(), broken.clone());
        Arc::new(broken)
    }

    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        let first = self.open.lock().expect("lock")[store.database()].clone();
        let inner = self.inner.again(&first.inner).await;
        Arc::new(Broken { inner, ..first })
    }

    fn own_sql(&self) -> bool {
        self.inner.own_sql()
    }

    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str) {
        self.inner.own_put(connection, key, value).await;
    }

    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String> {
        self.inner.own_get(connection, key).await
    }

    async fn close(&self, store: Arc<dyn Store>) {
        let broken = self.open.lock().expect("lock").remove(store.database());
        if let Some(broken) = broken {
            self.inner.close(broken.inner).await;
        }
    }

    fn runtime(&self) -> Runtime {
        self.inner.runtime()
    }
}
