//! The PostgreSQL store passes the conformance suite, on the server that `SAGABUS_POSTGRES_URL` names; each case in a
//! schema of its own.

#![cfg(feature = "postgres")]

mod postgres_support;

use async_trait::async_trait;
use postgres_support::{Schema, own};
use sagabus_core::Store;
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex},
};

#[derive(Default)]
struct PostgresHarness {
    open: Mutex<HashMap<String, Schema>>,
}

#[async_trait]
impl sagabus_testkit::store::StoreHarness for PostgresHarness {
    async fn open(&self) -> Arc<dyn Store> {
        let schema = Schema::new().await;
        let store = schema.store().await;
        self.open.lock().expect("lock").insert(store.database().0.clone(), schema);
        store
    }

    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        let schema = self.open.lock().expect("lock")[&store.database().0].clone();
        schema.store().await
    }

    fn own_sql(&self) -> bool {
        true
    }

    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str) {
        own::put(connection.downcast_mut().expect("a PgConnection"), key, value).await;
    }

    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String> {
        own::get(connection.downcast_mut().expect("a PgConnection"), key).await
    }

    async fn close(&self, store: Arc<dyn Store>) {
        let schema = self.open.lock().expect("lock").remove(&store.database().0);
        store.close().await;
        schema.expect("opened before").drop().await;
    }
}

sagabus_testkit::store_conformance!(PostgresHarness::default());
