//! The table of URL schemes.

use futures::future::BoxFuture;
use sagabus_core::{Error, Result, Runtime, Store, Transport};
use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

/// A URL to open, as [`register_transport`](crate::register_transport) and [`register_store`](crate::register_store) hand it to the function of its scheme.
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenUrl {
    /// The whole URL. It may hold a password: no error or log line may show more of it than the scheme.
    pub url: String,
    /// The endpoint's runtime: time, ids, randomness and tasks.
    pub runtime: Runtime,
}

impl OpenUrl {
    pub(super) fn new(url: &str, runtime: &Runtime) -> Self {
        Self { url: url.to_string(), runtime: runtime.clone() }
    }

    /// The scheme: the text before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        scheme(&self.url)
    }
}

impl fmt::Debug for OpenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenUrl").field("scheme", &self.scheme()).finish_non_exhaustive()
    }
}

type Open<T> = Arc<dyn Fn(OpenUrl) -> BoxFuture<'static, Result<Arc<T>>> + Send + Sync>;
type Schemes<T> = BTreeMap<String, Open<T>>;

/// Every scheme of this process.
#[derive(Default)]
pub(super) struct Registry {
    pub(super) stores: Schemes<dyn Store>,
    pub(super) transports: Schemes<dyn Transport>,
    /// Schemes of crate features that this build lacks, with the feature.
    lacking: BTreeMap<&'static str, &'static str>,
}

impl Registry {
    pub(super) fn store<F, O>(&mut self, scheme: &str, open: F)
    where
        F: Fn(OpenUrl) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Arc<dyn Store>>> + Send + 'static,
    {
        self.stores.insert(scheme.to_string(), Arc::new(move |url| Box::pin(open(url))));
    }

    pub(super) fn transport<F, O>(&mut self, scheme: &str, open: F)
    where
        F: Fn(OpenUrl) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Arc<dyn Transport>>> + Send + 'static,
    {
        self.transports.insert(scheme.to_string(), Arc::new(move |url| Box::pin(open(url))));
    }

    #[allow(dead_code, reason = "a build with all features lacks none")]
    pub(super) fn lacks(&mut self, scheme: &'static str, feature: &'static str) {
        self.lacking.insert(scheme, feature);
    }

    /// The error for a scheme that is not registered.
    pub(super) fn unknown(&self, what: &str, scheme: &str, known: &mut dyn Iterator<Item = &String>) -> Error {
        if let Some(feature) = self.lacking.get(scheme) {
            return Error::unsupported(format!(
                "{scheme}:// needs the feature `{feature}`, which this build of sagabus does not have: add it in Cargo.toml"
            ));
        }
        let mut names: Vec<String> = known.map(|name| example_url(name)).collect();
        names.sort_unstable();
        names.dedup();
        Error::invalid(format!("the {what} URL begins with {scheme:?}; known are {}", names.join(", ")))
    }
}

/// A URL of a scheme, as an error shows it.
fn example_url(scheme: &str) -> String {
    let rest = match scheme {
        "sqlite" => "file.db",
        "memory" => "name",
        _ => "",
    };
    format!("{scheme}://{rest}")
}

/// The text before the first colon. The rest may hold a password and is never shown.
pub(super) fn scheme(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}
