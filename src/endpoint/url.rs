//! From URLs to stores and transports.

use sagabus_core::{Error, Result, Runtime, Store, Transport};
use sagabus_outbox::memory::MemoryStore;
use sagabus_transports::{
    memory::MemoryBroker,
    sql::{SqlOptions, SqlTransport},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A transport, by URL or by value.
pub struct TransportSource(UrlOrValue<dyn Transport>);

/// A store, by URL or by value.
pub struct StoreSource(UrlOrValue<dyn Store>);

enum UrlOrValue<T: ?Sized> {
    Url(String),
    Value(Arc<T>),
}

impl From<&str> for TransportSource {
    fn from(url: &str) -> Self {
        Self(UrlOrValue::Url(url.into()))
    }
}

impl From<String> for TransportSource {
    fn from(url: String) -> Self {
        Self(UrlOrValue::Url(url))
    }
}

impl From<Arc<dyn Transport>> for TransportSource {
    fn from(transport: Arc<dyn Transport>) -> Self {
        Self(UrlOrValue::Value(transport))
    }
}

impl<T: Transport> From<Arc<T>> for TransportSource {
    fn from(transport: Arc<T>) -> Self {
        Self(UrlOrValue::Value(transport))
    }
}

impl From<&str> for StoreSource {
    fn from(url: &str) -> Self {
        Self(UrlOrValue::Url(url.into()))
    }
}

impl From<String> for StoreSource {
    fn from(url: String) -> Self {
        Self(UrlOrValue::Url(url))
    }
}

impl From<Arc<dyn Store>> for StoreSource {
    fn from(store: Arc<dyn Store>) -> Self {
        Self(UrlOrValue::Value(store))
    }
}

impl<T: Store> From<Arc<T>> for StoreSource {
    fn from(store: Arc<T>) -> Self {
        Self(UrlOrValue::Value(store))
    }
}

impl StoreSource {
    pub(crate) async fn open(self, runtime: &Runtime) -> Result<Arc<dyn Store>> {
        match self.0 {
            UrlOrValue::Value(store) => Ok(store),
            UrlOrValue::Url(url) => open_store(&url, runtime).await,
        }
    }
}

impl TransportSource {
    /// Whether it is a URL that a store could be opened from: an endpoint without a store then uses the same database.
    pub(crate) fn database_url(&self) -> Option<&str> {
        match &self.0 {
            UrlOrValue::Url(url) if matches!(scheme(url), "sqlite" | "postgres" | "postgresql") => Some(url),
            _ => None,
        }
    }

    /// Connects; with `migrate`, a database that serves as the transport gets its tables.
    pub(crate) async fn open(self, runtime: &Runtime, migrate: bool) -> Result<Arc<dyn Transport>> {
        let url = match self.0 {
            UrlOrValue::Value(transport) => return Ok(transport),
            UrlOrValue::Url(url) => url,
        };
        match scheme(&url) {
            "memory" => Ok(Arc::new(memory_broker(&url, runtime).transport())),
            "sqlite" | "postgres" | "postgresql" => {
                let store = open_store(&url, runtime).await?;
                if migrate {
                    store.migrate().await?;
                }
                queues_of(&store)
            }
            "amqp" | "amqps" => open_rabbitmq(&url, runtime).await,
            "kafka" | "kafka+ssl" => open_kafka(&url, runtime).await,
            other => Err(Error::invalid(format!(
                "the transport URL begins with {other:?}; known are sqlite://file.db, postgres://, amqp://, amqps://, \
                 kafka://, kafka+ssl:// and memory://name"
            ))),
        }
    }
}

#[cfg(feature = "rabbitmq")]
async fn open_rabbitmq(url: &str, runtime: &Runtime) -> Result<Arc<dyn Transport>> {
    use sagabus_transports::rabbitmq::{RabbitOptions, RabbitTransport};
    Ok(Arc::new(RabbitTransport::connect(url, RabbitOptions::new(runtime.clone())).await?))
}

#[cfg(not(feature = "rabbitmq"))]
async fn open_rabbitmq(url: &str, _: &Runtime) -> Result<Arc<dyn Transport>> {
    Err(feature_is_off(url, "rabbitmq"))
}

#[cfg(feature = "kafka")]
async fn open_kafka(url: &str, runtime: &Runtime) -> Result<Arc<dyn Transport>> {
    use sagabus_transports::kafka::{KafkaOptions, KafkaTransport};
    Ok(Arc::new(KafkaTransport::connect(url, KafkaOptions::new(runtime.clone())).await?))
}

#[cfg(not(feature = "kafka"))]
async fn open_kafka(url: &str, _: &Runtime) -> Result<Arc<dyn Transport>> {
    Err(feature_is_off(url, "kafka"))
}

/// The transport over a store's own queues: joined.
pub(crate) fn queues_of(store: &Arc<dyn Store>) -> Result<Arc<dyn Transport>> {
    match store.queues() {
        Some(queues) => Ok(Arc::new(SqlTransport::new(queues, SqlOptions::default()))),
        None => Err(Error::unsupported(
            "this store has no queues: name a transport with `.transport(\"…\")` on the builder",
        )),
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(url: &str, runtime: &Runtime) -> Result<Arc<dyn Store>> {
    use sagabus_outbox::sqlite::{SqliteOptions, SqliteStore};
    Ok(SqliteStore::open(url, SqliteOptions::new(runtime.clone())).await?)
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite(url: &str, _: &Runtime) -> Result<Arc<dyn Store>> {
    Err(feature_is_off(url, "sqlite"))
}

#[cfg(feature = "postgres")]
async fn open_postgres(url: &str, runtime: &Runtime) -> Result<Arc<dyn Store>> {
    use sagabus_outbox::postgres::{PostgresOptions, PostgresStore};
    Ok(Arc::new(PostgresStore::open(url, PostgresOptions::new(runtime.clone())).await?))
}

#[cfg(not(feature = "postgres"))]
async fn open_postgres(url: &str, _: &Runtime) -> Result<Arc<dyn Store>> {
    Err(feature_is_off(url, "postgres"))
}

async fn open_store(url: &str, runtime: &Runtime) -> Result<Arc<dyn Store>> {
    match scheme(url) {
        "memory" => Ok(memory_store(url, runtime)),
        "sqlite" => open_sqlite(url, runtime).await,
        "postgres" | "postgresql" => open_postgres(url, runtime).await,
        other => Err(Error::invalid(format!(
            "the store URL begins with {other:?}; known are sqlite://file.db, postgres:// and memory://name"
        ))),
    }
}

/// What a URL begins with. The rest may hold a password and is never shown.
fn scheme(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "rabbitmq", feature = "kafka")))]
fn feature_is_off(url: &str, feature: &str) -> Error {
    Error::unsupported(format!(
        "{}:// needs the feature `{feature}`, which this build of sagabus does not have: add it in Cargo.toml",
        scheme(url)
    ))
}

/// Memory stores and brokers are shared by name within the process, so that endpoints can meet on them.
fn memory_store(url: &str, runtime: &Runtime) -> Arc<dyn Store> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<MemoryStore>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(url.to_string()).or_insert_with(|| Arc::new(MemoryStore::new(runtime.clone()))).clone()
}

fn memory_broker(url: &str, runtime: &Runtime) -> MemoryBroker {
    static BROKERS: OnceLock<Mutex<HashMap<String, MemoryBroker>>> = OnceLock::new();
    let mut brokers = BROKERS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    brokers.entry(url.to_string()).or_insert_with(|| MemoryBroker::new(runtime.clone())).clone()
}
