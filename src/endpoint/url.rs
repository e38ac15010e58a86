//! Stores and transports by URL or by value.

use super::schemes::{self, Resolved};
use sagabus_core::{Error, Result, Runtime, Store, Transport};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::{fmt, sync::Arc};

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

impl fmt::Debug for TransportSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransportSource").field(&self.0.kind()).finish()
    }
}

impl fmt::Debug for StoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreSource").field(&self.0.kind()).finish()
    }
}

impl<T: ?Sized> UrlOrValue<T> {
    /// The scheme of a URL, or "value". The rest of a URL may hold a password.
    fn kind(&self) -> &str {
        match self {
            Self::Url(url) => url.split(':').next().unwrap_or_default(),
            Self::Value(_) => "value",
        }
    }
}

impl StoreSource {
    pub(crate) async fn open(self, runtime: &Runtime) -> Result<Arc<dyn Store>> {
        match self.0 {
            UrlOrValue::Value(store) => Ok(store),
            UrlOrValue::Url(url) => schemes::open_store(&url, runtime).await,
        }
    }
}

impl TransportSource {
    /// The URL, if it names a database: an endpoint without a store then uses the same database.
    pub(crate) fn database_url(&self) -> Option<&str> {
        match &self.0 {
            UrlOrValue::Url(url) if schemes::is_database(url) => Some(url),
            _ => None,
        }
    }

    /// Connects; with `migrate`, a database that serves as the transport gets its tables.
    pub(crate) async fn open(self, runtime: &Runtime, migrate: bool) -> Result<Arc<dyn Transport>> {
        let url = match self.0 {
            UrlOrValue::Value(transport) => return Ok(transport),
            UrlOrValue::Url(url) => url,
        };
        match schemes::resolve_transport(&url, runtime)? {
            Resolved::Transport(open) => open.await,
            Resolved::Database => {
                let store = schemes::open_store(&url, runtime).await?;
                if migrate {
                    store.migrate().await?;
                }
                queues_of(&store)
            }
        }
    }
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
