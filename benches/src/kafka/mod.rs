//! Kafka: topics of its own for each run, and what lies in the sink after it. Needs the feature `kafka`, which builds the
//! client library from its C sources.

#[cfg(feature = "kafka")]
pub(crate) mod baseline;
#[cfg(feature = "kafka")]
mod cluster;
#[cfg(feature = "kafka")]
mod feed;
#[cfg(feature = "kafka")]
pub(crate) mod port;
#[cfg(feature = "kafka")]
mod publisher;
#[cfg(feature = "kafka")]
pub(crate) mod sink;
#[cfg(feature = "kafka")]
mod topics;
#[cfg(feature = "kafka")]
pub(crate) use topics::Topics;

#[cfg(not(feature = "kafka"))]
mod off;
#[cfg(not(feature = "kafka"))]
pub(crate) use off::{Topics, baseline, port, sink};

/// The baseline's queues, and those of the passthrough.
#[cfg(feature = "kafka")]
const IN: &str = "in";
#[cfg(feature = "kafka")]
const OUT: &str = "out";

pub(crate) fn is_kafka(url: &str) -> bool {
    url.starts_with("kafka:")
}
