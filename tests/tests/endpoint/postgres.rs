//! PostgreSQL, with queue and store in one schema and in two. Those of a failed test stay to be looked at.

use sagabus::sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Postgres as Driver, Transaction};

/// For SQL of one's own.
pub(crate) use sagabus::prelude::Postgres as Own;
pub(crate) type Connection = PgConnection;

/// Whether the queues are the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Joined,
    Split,
}

/// Where a test's schemas are.
pub(crate) struct Place {
    kind: Kind,
    id: String,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, id: uuid::Uuid::now_v7().simple().to_string() }
    }

    fn schema(&self, name: &str) -> String {
        format!("t_{}_{name}", self.id)
    }

    /// The store's schema is in front of the search path: there own SQL has its tables.
    fn server(&self) -> String {
        let url = std::env::var("SAGABUS_POSTGRES_URL")
            .expect("SAGABUS_POSTGRES_URL names the server: cargo xtask servers up --only postgres");
        let join = if url.contains('?') { '&' } else { '?' };
        format!("{url}{join}options[search_path]={}", self.schema("shop"))
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}&schema={}", self.server(), self.schema(name))
    }

    pub(crate) fn is_split(&self) -> bool {
        self.kind == Kind::Split
    }

    /// A connection of one's own to the store's database; its schema is there already, or empty.
    pub(crate) async fn connect(&self) -> Connection {
        let mut connection = Connection::connect(&self.server()).await.unwrap();
        let sql = format!("set client_min_messages = warning; create schema if not exists {}", self.schema("shop"));
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection
    }

    /// While it is open, no unit is committed to the store.
    pub(crate) async fn hold(connection: &mut Connection) -> Transaction<'_, Driver> {
        let mut transaction = Self::begin(connection).await;
        transaction.execute("lock table inbox in share mode").await.unwrap();
        transaction
    }

    /// A transaction that writes.
    pub(crate) async fn begin(connection: &mut Connection) -> Transaction<'_, Driver> {
        connection.begin().await.unwrap()
    }

    /// After the test: the schemas go.
    pub(crate) async fn remove(&self) {
        let mut connection = self.connect().await;
        for name in ["shop", "bus"] {
            let sql = format!("drop schema if exists {} cascade", self.schema(name));
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    }
}
