//! The URL schemes of the stores and transports that come with the crate.

use super::scheme_registry::Registry;
use sagabus_core::{Runtime, Store, Transport};
use sagabus_outbox::memory::MemoryStore;
use sagabus_transports::memory::MemoryBroker;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

pub(super) fn all() -> Registry {
    let mut registry = Registry::default();
    registry.store("memory", async |open| Ok(memory_store(&open.url, &open.runtime)));
    registry.transport("memory", async |open| Ok(memory_transport(&open.url, &open.runtime)));
    sqlite(&mut registry);
    postgres(&mut registry);
    rabbitmq(&mut registry);
    kafka(&mut registry);
    registry
}

#[cfg(feature = "sqlite")]
fn sqlite(registry: &mut Registry) {
    use sagabus_outbox::sqlite::{SqliteOptions, SqliteStore};
    registry.store("sqlite", |open| async move {
        let store: Arc<dyn Store> = SqliteStore::open(&open.url, SqliteOptions::new(open.runtime)).await?;
        Ok(store)
    });
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(registry: &mut Registry) {
    registry.lacks("sqlite", "sqlite");
}

#[cfg(feature = "postgres")]
fn postgres(registry: &mut Registry) {
    use sagabus_outbox::postgres::{PostgresOptions, PostgresStore};
    for scheme in ["postgres", "postgresql"] {
        registry.store(scheme, |open| async move {
            let store: Arc<dyn Store> =
                Arc::new(PostgresStore::open(&open.url, PostgresOptions::new(open.runtime)).await?);
            Ok(store)
        });
    }
}

#[cfg(not(feature = "postgres"))]
fn postgres(registry: &mut Registry) {
    registry.lacks("postgres", "postgres");
    registry.lacks("postgresql", "postgres");
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq(registry: &mut Registry) {
    use sagabus_transports::rabbitmq::{RabbitMqOptions, RabbitMqTransport};
    for scheme in ["amqp", "amqps"] {
        registry.transport(scheme, |open| async move {
            let transport: Arc<dyn Transport> =
                Arc::new(RabbitMqTransport::connect(&open.url, RabbitMqOptions::new(open.runtime)).await?);
            Ok(transport)
        });
    }
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(registry: &mut Registry) {
    registry.lacks("amqp", "rabbitmq");
    registry.lacks("amqps", "rabbitmq");
}

#[cfg(feature = "kafka")]
fn kafka(registry: &mut Registry) {
    use sagabus_transports::kafka::{KafkaOptions, KafkaTransport};
    for scheme in ["kafka", "kafka+ssl"] {
        registry.transport(scheme, |open| async move {
            let transport: Arc<dyn Transport> =
                Arc::new(KafkaTransport::connect(&open.url, KafkaOptions::new(open.runtime)).await?);
            Ok(transport)
        });
    }
}

#[cfg(not(feature = "kafka"))]
fn kafka(registry: &mut Registry) {
    registry.lacks("kafka", "kafka");
    registry.lacks("kafka+ssl", "kafka");
}

/// The memory stores are shared by URL within the process, so that endpoints can meet on them.
fn memory_store(url: &str, runtime: &Runtime) -> Arc<dyn Store> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<MemoryStore>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(url.to_string()).or_insert_with(|| Arc::new(MemoryStore::new(runtime.clone()))).clone()
}

/// The memory brokers are shared in the same way.
fn memory_transport(url: &str, runtime: &Runtime) -> Arc<dyn Transport> {
    static BROKERS: OnceLock<Mutex<HashMap<String, MemoryBroker>>> = OnceLock::new();
    let mut brokers = BROKERS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    Arc::new(brokers.entry(url.to_string()).or_insert_with(|| MemoryBroker::new(runtime.clone())).transport())
}
