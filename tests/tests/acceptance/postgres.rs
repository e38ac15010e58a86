//! PostgreSQL, with queue and store in one schema and in two. Each test has its own; those of a failed one stay to be
//! looked at.

use sagabus::{
    Runtime,
    ports::{Store, Transport},
    sqlx::{self, AssertSqlSafe, Connection as _, Executor as _},
    store::postgres::{PostgresOptions, PostgresStore},
    transport::sql::{SqlOptions, SqlTransport},
};
use std::{sync::Arc, time::Duration};

/// For SQL of one's own.
pub(crate) use sagabus::prelude::Postgres as Own;
pub(crate) type Connection = sqlx::PgConnection;
/// Begins a transaction that writes.
pub(crate) const BEGIN: &str = "begin";

pub(crate) struct Setup {
    joined: bool,
}

impl Setup {
    pub(crate) fn postgres_joined() -> Self {
        Self { joined: true }
    }
    pub(crate) fn postgres_split() -> Self {
        Self { joined: false }
    }
}

pub(crate) struct Place {
    setup: Setup,
    /// The store's. The other one is called after it.
    schema: String,
}

impl Place {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, schema: format!("t_{}", Runtime::system().uuid().simple()) }
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.setup.joined
    }

    fn bus(&self) -> String {
        format!("{}_bus", self.schema)
    }

    /// The server, with the store's schema in front of the search path: there own SQL has its tables.
    fn url(&self) -> String {
        let url = std::env::var("SAGABUS_POSTGRES_URL")
            .expect("SAGABUS_POSTGRES_URL names the server: cargo xtask servers up --only postgres");
        let join = if url.contains('?') { '&' } else { '?' };
        format!("{url}{join}options[search_path]={}", self.schema)
    }

    /// Nothing is shared with other handles, as between processes. Commits do not wait for the disk: no test here cuts
    /// the power.
    async fn open(&self, schema: &str, limit: Option<Duration>) -> Arc<dyn Store> {
        let mut options = PostgresOptions::default().schema(schema).volatile();
        options.shared = false;
        options.connections = 6;
        options.transactions = 4;
        options.transaction_limit = limit.unwrap_or(options.transaction_limit);
        let store = PostgresStore::open(&self.url(), options).await.unwrap();
        store.migrate().await.unwrap();
        Arc::new(store)
    }

    /// A new handle on the one store, as another process has it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        self.open(&self.schema, None).await
    }

    /// The same; a handler may hold its transaction for so long only.
    pub(crate) async fn impatient_store(&self, limit: Duration) -> Arc<dyn Store> {
        self.open(&self.schema, Some(limit)).await
    }

    /// A new handle on what carries the messages.
    pub(crate) async fn transport(&self) -> Arc<dyn Transport> {
        let queues = if self.is_joined() { self.store().await } else { self.open(&self.bus(), None).await };
        Arc::new(SqlTransport::new(queues.queues().unwrap(), SqlOptions::default()))
    }

    /// A connection of one's own to the store's database.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.url()).await.unwrap()
    }

    /// After the test: the schemas go.
    pub(crate) async fn remove(&self) {
        let mut connection = self.connect().await;
        for schema in [&self.schema, &self.bus()] {
            let sql = format!("set client_min_messages = warning; drop schema if exists {schema} cascade");
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    }
}
