//! The context that all tasks of an endpoint share.

use super::{retry_policy::Recoverability, route_table::RouteTable, stats::Counters};
use sagabus_core::{EndpointInfo, LeaseKeeper, Owner, Store};
use std::sync::Arc;

/// State and settings that the tasks of an endpoint share.
pub(crate) struct EndpointContext {
    pub(crate) info: Arc<EndpointInfo>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) routes: RouteTable,
    pub(crate) policy: Recoverability,
    pub(crate) counters: Counters,
    /// The transport is the store's own queues.
    pub(crate) joined: bool,
    /// There is no store: see [`at_least_once`](crate::at_least_once).
    pub(crate) at_least_once: bool,
    pub(crate) ordered: bool,
    pub(crate) concurrency: usize,
    pub(crate) batch: usize,
    pub(crate) owner: Owner,
    pub(crate) keeper: Arc<LeaseKeeper>,
}
