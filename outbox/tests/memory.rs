//! The memory store passes the conformance suite.

use async_trait::async_trait;
use sagabus_core::{DatabaseId, Runtime, Store};
use sagabus_outbox::memory::{MemoryStore, ScratchRows};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex},
};

#[derive(Default)]
struct MemoryHarness {
    open: Mutex<HashMap<DatabaseId, MemoryStore>>,
}

#[async_trait]
impl sagabus_testkit::store::StoreHarness for MemoryHarness {
    async fn open(&self) -> Arc<dyn Store> {
        let store = MemoryStore::new(Runtime::system());
        self.open.lock().expect("lock").insert(Store::database(&store).clone(), store.clone());
        Arc::new(store)
    }

    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(self.open.lock().expect("lock")[store.database()].open_again())
    }

    fn own_sql(&self) -> bool {
        true
    }

    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str) {
        connection.downcast_mut::<ScratchRows>().expect("scratch rows").put(key, value);
    }

    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String> {
        let rows = connection.downcast_mut::<ScratchRows>().expect("scratch rows");
        rows.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    async fn close(&self, store: Arc<dyn Store>) {
        self.open.lock().expect("lock").remove(store.database());
        store.close().await;
    }
}

sagabus_testkit::store_conformance!(MemoryHarness::default());
