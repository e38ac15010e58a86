//! What a run has on the cluster; it goes away with it.

use super::cluster::Cluster;
use anyhow::{Context as _, Result};

/// Where the cluster is, if the URL is `kafka://` and nothing else.
const VARIABLE: &str = "SAGABUS_KAFKA_URL";

pub(crate) struct Topics {
    pub(crate) url: String,
}

impl Topics {
    pub(crate) fn fresh(url: &str, number: usize) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let base = if matches!(base, "kafka:" | "kafka://") {
            std::env::var(VARIABLE)
                .with_context(|| format!("{VARIABLE} names no cluster: cargo xtask servers up --only kafka"))?
        } else {
            base.to_owned()
        };
        let and = if query.is_empty() { "" } else { "&" };
        Ok(Self { url: format!("{base}?{query}{and}prefix=bench-{}-{number}.", std::process::id()) })
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        if let Err(error) = Cluster::of(&self.url).and_then(|cluster| cluster.remove_all()) {
            eprintln!("remove what the run has on kafka: {error:#}");
        }
    }
}
