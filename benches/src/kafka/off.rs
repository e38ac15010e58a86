//! In place of it all where the feature is off: says so.

use anyhow::{Result, bail};

const OFF: &str = "this build has no kafka: cargo run --release -p sagabus-bench --features kafka -- …";

/// Every run asks for them first.
pub(crate) struct Topics {
    pub(crate) url: String,
}

impl Topics {
    pub(crate) fn fresh(_: &str, _: usize) -> Result<Self> {
        bail!(OFF)
    }
}

pub(crate) mod baseline {
    use crate::{args::Spec, report::Side};

    pub(crate) async fn run(_: &Spec) -> anyhow::Result<Side> {
        anyhow::bail!(super::OFF)
    }
}

pub(crate) use baseline as port;

pub(crate) mod sink {
    use crate::latency::{Clock, Latencies};
    use anyhow::{Result, bail};
    use std::sync::atomic::AtomicU64;

    pub(crate) async fn read_outputs(_: &str, _: &str, _: u64, _: Clock, _: &AtomicU64) -> Result<Latencies> {
        bail!(super::OFF)
    }

    pub(crate) async fn count(_: &str, _: &str) -> Result<(i64, i64)> {
        bail!(super::OFF)
    }

    pub(crate) async fn left(_: &str, _: &str) -> Result<i64> {
        bail!(super::OFF)
    }
}
