//! Set-ups: what carries the messages, what holds the state, and where they are for one case.
#![allow(dead_code, reason = "each program runs the set-ups that its servers allow")]

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

use sagabus::{
    Runtime,
    ports::{Store, Transport},
    sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection},
    store::{
        memory::MemoryStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    transport::{
        memory::MemoryBroker,
        sql::{SqlOptions, SqlTransport},
    },
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    Memory,
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransportKind {
    /// The store's own queues.
    Joined,
    /// A broker in memory, or queues in a second database of the store's kind.
    Split,
    RabbitMq,
    Kafka,
}

/// A store and a transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    store: StoreKind,
    transport: TransportKind,
}

macro_rules! setups {
    ($($name:ident $store:ident $transport:ident)+) => {
        impl Setup {
            $(pub(crate) const fn $name() -> Self {
                Self { store: StoreKind::$store, transport: TransportKind::$transport }
            })+
        }
    };
}

setups! {
    memory_joined Memory Joined
    memory_split Memory Split
    sqlite_joined Sqlite Joined
    sqlite_split Sqlite Split
    postgres_joined Postgres Joined
    postgres_split Postgres Split
    rabbitmq_sqlite Sqlite RabbitMq
    rabbitmq_postgres Postgres RabbitMq
    kafka_sqlite Sqlite Kafka
    kafka_postgres Postgres Kafka
}

impl Setup {
    /// Whether the queues are the store's.
    pub(crate) fn is_joined(self) -> bool {
        self.transport == TransportKind::Joined
    }

    /// Whether a broker carries the messages.
    pub(crate) fn is_broker(self) -> bool {
        matches!(self.transport, TransportKind::RabbitMq | TransportKind::Kafka)
    }

    /// Set-ups behind a broker run on two threads; the others on one, so that every interleaving is the scheduler's.
    pub(crate) fn runtime(self) -> tokio::runtime::Runtime {
        let mut builder = match self.is_broker() {
            true => tokio::runtime::Builder::new_multi_thread(),
            false => tokio::runtime::Builder::new_current_thread(),
        };
        builder.worker_threads(2).enable_all().build().unwrap()
    }
}

/// Where the databases and queues of one case are.
pub(crate) struct TestEnvironment {
    pub(crate) setup: Setup,
    /// No other case has it.
    id: String,
    memory: MemoryStore,
    memory_broker: MemoryBroker,
    /// Of the SQLite files.
    directory: PathBuf,
    /// To look at the queues.
    queues: OnceCell<Arc<dyn Store>>,
    #[cfg(feature = "rabbitmq")]
    rabbitmq: OnceCell<lapin::Connection>,
    #[cfg(feature = "kafka")]
    kafka: OnceCell<sagabus::transport::kafka::KafkaTransport>,
}

impl TestEnvironment {
    pub(crate) fn new(setup: Setup) -> Self {
        let runtime = Runtime::system();
        let id = format!("t_{}", runtime.uuid().simple());
        let directory = std::env::temp_dir().join(format!("sagabus-acceptance-{id}"));
        if setup.store == StoreKind::Sqlite {
            std::fs::create_dir(&directory).unwrap();
        }
        let memory = MemoryStore::new(runtime.clone());
        Self {
            setup,
            id,
            memory,
            memory_broker: MemoryBroker::new(runtime),
            directory,
            queues: OnceCell::new(),
            #[cfg(feature = "rabbitmq")]
            rabbitmq: OnceCell::new(),
            #[cfg(feature = "kafka")]
            kafka: OnceCell::new(),
        }
    }

    /// The database of the store, for a client of one's own.
    pub(crate) fn database_url(&self) -> String {
        match self.setup.store {
            StoreKind::Memory => panic!("a store in memory has no clients"),
            StoreKind::Sqlite => self.sqlite_url("store"),
            StoreKind::Postgres => self.postgres_url(),
        }
    }

    /// The URL of another store, which has the options that a program would give it.
    pub(crate) fn store_url(&self) -> String {
        self.url_of("url_store")
    }

    /// The URL of what carries the messages with that store.
    pub(crate) fn transport_url(&self) -> String {
        match self.setup.transport {
            TransportKind::Joined => self.store_url(),
            TransportKind::Split => self.url_of("url_bus"),
            TransportKind::RabbitMq => self.rabbitmq_url(),
            TransportKind::Kafka => self.kafka_url(),
        }
    }

    fn url_of(&self, name: &str) -> String {
        match self.setup.store {
            StoreKind::Memory => format!("memory://{}-{name}", self.id),
            StoreKind::Sqlite => self.sqlite_url(name),
            StoreKind::Postgres => format!("{}&schema={}", self.postgres_url(), self.schema(name)),
        }
    }

    fn sqlite_url(&self, name: &str) -> String {
        format!("sqlite://{}.db", self.directory.join(name).display())
    }

    fn schema(&self, name: &str) -> String {
        format!("{}_{name}", self.id)
    }

    /// The server, with the store's schema in front of the search path: there own SQL has its tables.
    fn postgres_url(&self) -> String {
        let url = server("SAGABUS_POSTGRES_URL", "postgres");
        let join = if url.contains('?') { '&' } else { '?' };
        format!("{url}{join}options[search_path]={}", self.schema("store"))
    }

    /// A new handle on a database. Commits do not wait for the disk: no test here cuts the power.
    async fn open(&self, name: &str, limit: Option<Duration>) -> Arc<dyn Store> {
        let store: Arc<dyn Store> = match self.setup.store {
            StoreKind::Memory => Arc::new(self.memory.open_again()),
            StoreKind::Sqlite => {
                let mut options = SqliteOptions::default().volatile();
                options.transaction_limit = limit.unwrap_or(options.transaction_limit);
                SqliteStore::open(&self.sqlite_url(name), options).await.unwrap()
            }
            StoreKind::Postgres => {
                let mut options = PostgresOptions::default().schema(self.schema(name)).volatile();
                // nothing is shared with other handles, as between processes
                options.shared = false;
                options.connections = 6;
                options.transactions = 4;
                options.transaction_limit = limit.unwrap_or(options.transaction_limit);
                Arc::new(PostgresStore::open(&self.postgres_url(), options).await.unwrap())
            }
        };
        store.migrate().await.unwrap();
        store
    }

    /// A new handle on the one store, as another process has it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        self.open("store", None).await
    }

    /// The same; a handler may hold its transaction for so long only.
    pub(crate) async fn impatient_store(&self, limit: Duration) -> Arc<dyn Store> {
        self.open("store", Some(limit)).await
    }

    /// How many messages wait in a queue, those in hand included where the transport counts them.
    pub(crate) async fn waiting(&self, queue: &str) -> u64 {
        let queues = match (self.setup.transport, self.setup.store) {
            (TransportKind::RabbitMq, _) => return self.waiting_on_rabbitmq(queue).await,
            (TransportKind::Kafka, _) => return self.waiting_on_kafka(queue).await,
            (TransportKind::Split, StoreKind::Memory) => {
                return self.memory_broker.depth(queue).unwrap_or_default() as u64;
            }
            (TransportKind::Split, _) => self.queues.get_or_init(|| self.open("bus", None)).await,
            (TransportKind::Joined, _) => self.queues.get_or_init(|| self.store()).await,
        };
        queues.queues().unwrap().depth(queue).await.unwrap()
    }

    /// A new handle on what carries the messages.
    pub(crate) async fn transport(&self) -> Arc<dyn Transport> {
        let queues = match (self.setup.transport, self.setup.store) {
            (TransportKind::RabbitMq, _) => return self.rabbitmq().await,
            (TransportKind::Kafka, _) => return self.kafka().await,
            (TransportKind::Split, StoreKind::Memory) => return Arc::new(self.memory_broker.transport()),
            (TransportKind::Split, _) => self.open("bus", None).await,
            (TransportKind::Joined, _) => self.store().await,
        };
        Arc::new(SqlTransport::new(queues.queues().unwrap(), SqlOptions::default()))
    }

    /// Removes what the case has left on servers. The directory goes in any case.
    pub(crate) async fn remove(&self) {
        match self.setup.transport {
            TransportKind::RabbitMq => self.remove_from_rabbitmq().await,
            TransportKind::Kafka => self.remove_from_kafka().await,
            TransportKind::Joined | TransportKind::Split => {}
        }
        if let Some(queues) = self.queues.get() {
            queues.close().await;
        }
        if self.setup.store == StoreKind::Postgres {
            let mut connection = PgConnection::connect(&self.postgres_url()).await.unwrap();
            for name in ["store", "bus", "url_store", "url_bus"] {
                let schema = self.schema(name);
                let sql = format!("set client_min_messages = warning; drop schema if exists {schema} cascade");
                connection.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }
}

#[cfg(not(feature = "rabbitmq"))]
impl TestEnvironment {
    fn rabbitmq_url(&self) -> String {
        panic!("this program is built without rabbitmq")
    }

    async fn rabbitmq(&self) -> Arc<dyn Transport> {
        panic!("{}", self.rabbitmq_url())
    }

    async fn waiting_on_rabbitmq(&self, _: &str) -> u64 {
        panic!("{}", self.rabbitmq_url())
    }

    async fn remove_from_rabbitmq(&self) {}
}

#[cfg(not(feature = "kafka"))]
impl TestEnvironment {
    fn kafka_url(&self) -> String {
        panic!("this program is built without kafka")
    }

    async fn kafka(&self) -> Arc<dyn Transport> {
        panic!("{}", self.kafka_url())
    }

    async fn waiting_on_kafka(&self, _: &str) -> u64 {
        panic!("{}", self.kafka_url())
    }

    async fn remove_from_kafka(&self) {}
}

/// A server's address.
fn server(variable: &str, name: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} names the server: cargo xtask servers up --only {name}"))
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        // there is none without SQLite; what the endpoints still hold open goes with the process
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
