//! The SQLite store passes the conformance suite: with handles that share a writer, as in one process, and with handles
//! that do not, as in several.
#![cfg(feature = "sqlite")]

use async_trait::async_trait;
use sagabus_core::{DatabaseId, Runtime, Store};
use sagabus_outbox::sqlite::{SqliteOptions, SqliteStore};
use sqlx::{Row as _, SqliteConnection};
use std::{
    any::Any,
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

struct SqliteHarness {
    isolated: bool,
    files: Mutex<HashMap<DatabaseId, PathBuf>>,
}

impl SqliteHarness {
    fn new(isolated: bool) -> Self {
        Self { isolated, files: Mutex::default() }
    }

    async fn at(&self, directory: &std::path::Path) -> Arc<SqliteStore> {
        let mut options = SqliteOptions::new(Runtime::system());
        options.isolated = self.isolated;
        let url = format!("sqlite://{}", directory.join("bus.db").display());
        SqliteStore::open(&url, options).await.expect("open")
    }
}

#[async_trait]
impl sagabus_testkit::store::StoreHarness for SqliteHarness {
    async fn open(&self) -> Arc<dyn Store> {
        let directory = std::env::temp_dir().join(format!("sagabus-conf-{}", Runtime::system().uuid().simple()));
        std::fs::create_dir_all(&directory).expect("create a directory");
        let store = self.at(&directory).await;
        Store::migrate(&*store).await.expect("migrate");
        store.check().await.expect("check");
        self.files.lock().expect("lock").insert(Store::database(&*store).clone(), directory);
        store
    }

    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        let directory = self.files.lock().expect("lock")[store.database()].clone();
        self.at(&directory).await
    }

    fn own_sql(&self) -> bool {
        true
    }

    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str) {
        let connection = connection.downcast_mut::<SqliteConnection>().expect("a sqlite connection");
        for statement in [
            "create table if not exists own (key text primary key, value text)",
            "insert or replace into own values (?1, ?2)",
        ] {
            let query = sqlx::query(statement).bind(key).bind(value);
            query.execute(&mut *connection).await.expect("own sql");
        }
    }

    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String> {
        let connection = connection.downcast_mut::<SqliteConnection>().expect("a sqlite connection");
        let create = "create table if not exists own (key text primary key, value text)";
        sqlx::query(create).execute(&mut *connection).await.expect("own sql");
        let query = sqlx::query("select value from own where key=?").bind(key);
        query.fetch_optional(connection).await.expect("own sql").map(|row| row.get(0))
    }

    async fn close(&self, store: Arc<dyn Store>) {
        let directory = self.files.lock().expect("lock").remove(store.database());
        store.close().await;
        if let Some(directory) = directory {
            std::fs::remove_dir_all(directory).expect("remove the directory");
        }
    }
}

mod one_process {
    use super::*;
    sagabus_testkit::store_conformance!(SqliteHarness::new(false));
}

mod two_processes {
    use super::*;
    sagabus_testkit::store_conformance!(SqliteHarness::new(true));
}
