//! An endpoint: a named queue, its handlers, its store.

mod builder;
mod builtin_schemes;
mod running;
mod scheme_registry;
mod schemes;
mod settings;
#[cfg(test)]
mod tests;
mod url;

pub use builder::EndpointBuilder;
pub use running::{Health, RunningEndpoint};
pub use scheme_registry::OpenUrl;
pub use schemes::{register_store, register_transport};
pub use url::{StoreSource, TransportSource};

use crate::{admin::EndpointAdmin, bus::Bus, engine::RouteTable};
use sagabus_core::{EndpointInfo, Owner, Result, Store, Transport};
use settings::Settings;
use std::{future::Future, sync::Arc};

/// An endpoint that is configured and connected, and does not receive yet.
///
/// Any number of processes may run the same endpoint: they share its work. See [`EndpointBuilder`] for what can be set.
pub struct Endpoint {
    pub(crate) info: Arc<EndpointInfo>,
    pub(crate) routes: RouteTable,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) joined: bool,
    pub(crate) owner: Owner,
    pub(crate) bus: Bus,
    pub(crate) settings: Settings,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.info.name)
            .field("node", &self.info.node)
            .field("joined", &self.joined)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Begins to build an endpoint. The name is its queue's name: letters, digits and `. _ - : /`.
    pub fn builder(name: impl Into<String>) -> EndpointBuilder {
        EndpointBuilder::new(name.into())
    }

    /// Sends and publishes from outside handlers.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// The administration of this endpoint: dead letters, timers, sagas. `None` without a store.
    pub fn admin(&self) -> Option<EndpointAdmin> {
        self.store.as_ref().map(|store| EndpointAdmin::new(self.info.name.clone(), store.admin()))
    }

    /// Starts receiving. The endpoint runs until [`RunningEndpoint::stop`]; dropping the handle lets it run on.
    pub async fn start(self) -> Result<RunningEndpoint> {
        running::start(self).await
    }

    /// Runs until the future ends, then stops cleanly: takes nothing new, finishes what is in flight, sends what is
    /// committed.
    pub async fn run_until(self, end: impl Future<Output = ()>) -> Result<()> {
        let running = self.start().await?;
        end.await;
        running.stop().await
    }
}
