//! A schema per test, on the server that `SAGABUS_POSTGRES_URL` names.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use sagabus_core::{Runtime, Store};
use sagabus_outbox::postgres::{PostgresOptions, PostgresStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::sync::Arc;

/// The server's address.
///
/// # Panics
/// If the environment names none: the suite proves nothing without a server.
pub fn url() -> String {
    std::env::var("SAGABUS_POSTGRES_URL")
        .expect("SAGABUS_POSTGRES_URL names the server: cargo xtask servers up --only postgres")
}

/// A schema of its own.
#[derive(Clone)]
pub struct Schema(pub String);

impl Schema {
    /// A fresh one, with the tables of own SQL beside it.
    pub async fn new() -> Self {
        let schema = Self(format!("t_{}", Runtime::system().uuid().simple()));
        schema
            .run("create schema {s}; create table {s}.own_row (key text primary key, value text not null)".into())
            .await;
        schema
    }

    /// The server's address, with this schema in front of the search path.
    pub fn url(&self) -> String {
        let url = url();
        let join = if url.contains('?') { '&' } else { '?' };
        format!("{url}{join}options[search_path]={}", self.0)
    }

    /// The options of a test: nothing is shared, as between processes.
    pub fn options(&self) -> PostgresOptions {
        let mut options = PostgresOptions::default().schema(&self.0);
        options.shared = false;
        options.connections = 6;
        options.transactions = 4;
        options
    }

    /// A handle, migrated.
    pub async fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.open(self.options()).await)
    }

    /// A handle with these options, migrated.
    pub async fn open(&self, options: PostgresOptions) -> PostgresStore {
        let store = PostgresStore::open(&self.url(), options).await.expect("open");
        store.migrate().await.expect("migrate");
        store
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("connect")
    }

    /// Runs statements.
    pub async fn run(&self, sql: String) {
        self.connect().await.execute(AssertSqlSafe(sql.replace("{s}", &self.0))).await.expect("run");
    }

    /// Everything goes.
    pub async fn drop(self) {
        self.run("set client_min_messages=warning; drop schema if exists {s} cascade".into()).await;
    }
}

/// Own rows, in a table that the search path leads to.
pub mod own {
    use sqlx::{Executor as _, PgConnection, Row as _};

    /// Writes a row.
    pub async fn put(connection: &mut PgConnection, key: &str, value: &str) {
        let sql = "insert into own_row (key,value) values ($1,$2) on conflict (key) do update set value=excluded.value";
        sqlx::query(sql).bind(key).bind(value).execute(connection).await.expect("put");
    }

    /// Reads a row.
    pub async fn get(connection: &mut PgConnection, key: &str) -> Option<String> {
        let query = sqlx::query("select value from own_row where key=$1").bind(key.to_owned());
        connection.fetch_optional(query).await.expect("get").map(|row| row.get(0))
    }
}
