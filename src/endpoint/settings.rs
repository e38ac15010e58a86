//! Settings of an endpoint and their defaults.

use crate::Recoverability;
use sagabus_core::{Codec, Limits, Runtime};
use std::time::Duration;

/// The settings of an endpoint, beside handlers, store and transport.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) codec: Codec,
    pub(crate) limits: Limits,
    pub(crate) recoverability: Recoverability,
    pub(crate) runtime: Runtime,
    pub(crate) concurrency: usize,
    pub(crate) batch: usize,
    pub(crate) ordered: bool,
    pub(crate) at_least_once: bool,
    pub(crate) lease: Duration,
    pub(crate) horizon: Duration,
    pub(crate) migrate: bool,
    pub(crate) drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            codec: Codec::json(),
            limits: Limits::default(),
            recoverability: Recoverability::default(),
            runtime: Runtime::system(),
            concurrency: 256,
            // SQLite's statements come in powers of two
            batch: 384,
            ordered: false,
            at_least_once: false,
            lease: Duration::from_secs(5),
            horizon: Duration::from_secs(7 * 86_400),
            migrate: true,
            drain: Duration::from_secs(30),
        }
    }
}
