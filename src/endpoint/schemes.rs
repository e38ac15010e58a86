//! Registers URL schemes, and opens stores and transports by them.

use super::{
    builtin_schemes,
    scheme_registry::{OpenUrl, Registry, scheme},
};
use futures::future::BoxFuture;
use sagabus_core::{Error, Result, Runtime, Store, Transport};
use std::{
    future::Future,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

fn registry() -> &'static RwLock<Registry> {
    static REGISTRY: OnceLock<RwLock<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| RwLock::new(builtin_schemes::all()))
}

/// Registers the transport of a URL scheme, for [`EndpointBuilder::transport`](crate::EndpointBuilder::transport).
///
/// Call it once, before the first endpoint is built; the scheme is then known in the whole process.
///
/// ```
/// use sagabus::{ports::Transport, transport::memory::MemoryBroker};
/// use std::sync::Arc;
///
/// sagabus::register_transport("mem-test", |open| async move {
///     let transport: Arc<dyn Transport> = Arc::new(MemoryBroker::new(open.runtime).transport());
///     Ok(transport)
/// })?;
/// # Ok::<(), sagabus::Error>(())
/// ```
///
/// # Errors
/// [Invalid](Error::is_invalid) for a text that cannot be a scheme, and for a scheme that is registered already.
pub fn register_transport<F, O>(scheme: &str, open: F) -> Result<()>
where
    F: Fn(OpenUrl) -> O + Send + Sync + 'static,
    O: Future<Output = Result<Arc<dyn Transport>>> + Send + 'static,
{
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    check_free("transport", scheme, registry.transports.contains_key(scheme) || registry.stores.contains_key(scheme))?;
    registry.transport(scheme, open);
    Ok(())
}

/// Registers the store of a URL scheme, for [`EndpointBuilder::store`](crate::EndpointBuilder::store).
///
/// If the store has [queues](Store::queues), the scheme names a transport too, and an endpoint with that transport and
/// without a store uses the same database. Call it once, before the first endpoint is built.
///
/// ```
/// use sagabus::{ports::Store, store::memory::MemoryStore};
/// use std::sync::Arc;
///
/// sagabus::register_store("mem-store", |open| async move {
///     let store: Arc<dyn Store> = Arc::new(MemoryStore::new(open.runtime));
///     Ok(store)
/// })?;
/// # Ok::<(), sagabus::Error>(())
/// ```
///
/// # Errors
/// [Invalid](Error::is_invalid) for a text that cannot be a scheme, and for a scheme that is registered already.
pub fn register_store<F, O>(scheme: &str, open: F) -> Result<()>
where
    F: Fn(OpenUrl) -> O + Send + Sync + 'static,
    O: Future<Output = Result<Arc<dyn Store>>> + Send + 'static,
{
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    check_free("store", scheme, registry.stores.contains_key(scheme))?;
    registry.store(scheme, open);
    Ok(())
}

fn check_free(what: &str, scheme: &str, taken: bool) -> Result<()> {
    let mut bytes = scheme.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    if !fits {
        return Err(Error::invalid(format!(
            "register the {what} scheme {scheme:?}: a scheme begins with a lower-case letter and has lower-case letters, \
             digits, `+`, `-` and `.` only"
        )));
    }
    match taken {
        true => Err(Error::invalid(format!("register the {what} scheme {scheme:?}: it is registered already"))),
        false => Ok(()),
    }
}

/// Opens the store of a URL.
pub(super) async fn open_store(url: &str, runtime: &Runtime) -> Result<Arc<dyn Store>> {
    let open = {
        let registry = registry().read().unwrap_or_else(PoisonError::into_inner);
        match registry.stores.get(scheme(url)) {
            Some(open) => open.clone(),
            None => return Err(registry.unknown("store", scheme(url), &mut registry.stores.keys())),
        }
    };
    open(OpenUrl::new(url, runtime)).await
}

/// A transport's URL, resolved.
pub(super) enum Resolved {
    /// The scheme of a transport.
    Transport(BoxFuture<'static, Result<Arc<dyn Transport>>>),
    /// The scheme of a database: its queues are the transport.
    Database,
}

/// Finds the transport of a URL.
pub(super) fn resolve_transport(url: &str, runtime: &Runtime) -> Result<Resolved> {
    let registry = registry().read().unwrap_or_else(PoisonError::into_inner);
    match registry.transports.get(scheme(url)) {
        Some(open) => Ok(Resolved::Transport(open(OpenUrl::new(url, runtime)))),
        None if registry.stores.contains_key(scheme(url)) => Ok(Resolved::Database),
        None => {
            let mut known = registry.transports.keys().chain(registry.stores.keys());
            Err(registry.unknown("transport", scheme(url), &mut known))
        }
    }
}

/// Whether the URL names a database that serves as store and transport.
pub(super) fn is_database(url: &str) -> bool {
    let registry = registry().read().unwrap_or_else(PoisonError::into_inner);
    registry.stores.contains_key(scheme(url)) && !registry.transports.contains_key(scheme(url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, store::memory::MemoryStore, transport::memory::MemoryBroker};

    #[tokio::test]
    async fn a_registered_scheme_opens_a_store_and_its_queues() {
        register_store("schemes-store", |open| async move {
            assert_eq!(open.scheme(), "schemes-store");
            Ok(Arc::new(MemoryStore::new(open.runtime)) as Arc<dyn Store>)
        })
        .unwrap();
        assert!(is_database("schemes-store://x"));
        Endpoint::builder("a").transport("schemes-store://x").build().await.unwrap();
        let twice = register_store("schemes-store", |_| async { Err(Error::closed("never")) }).unwrap_err();
        assert!(twice.is_invalid() && twice.to_string().contains("already"), "{twice}");
    }

    #[tokio::test]
    async fn a_registered_scheme_opens_a_transport() {
        register_transport("schemes-mem", |open| async move {
            Ok(Arc::new(MemoryBroker::new(open.runtime).transport()) as Arc<dyn Transport>)
        })
        .unwrap();
        Endpoint::builder("a").transport("schemes-mem://x").build().await.unwrap();
        assert!(!is_database("schemes-mem://x"));
    }

    #[tokio::test]
    async fn built_in_and_malformed_schemes_are_refused() {
        for scheme in ["memory", "", "Nats", "na ts", "1x", "nats:"] {
            let error = register_transport(scheme, |_| async { Err(Error::closed("never")) }).unwrap_err();
            assert!(error.is_invalid(), "{scheme:?}: {error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_scheme_names_the_known_ones_and_no_secret() {
        for error in [
            Endpoint::builder("a").transport("foo://user:secret@host").build().await.map(drop).unwrap_err(),
            Endpoint::builder("a").store("foo://user:secret@host").build().await.map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("\"foo\"") && text.contains("memory://") && !text.contains("secret"), "{text}");
        }
    }
}
