//! The best program without a framework: same file format family, same guarantees, nothing general.
//!
//! SQLite: one task reads ahead, decodes, loads the states and runs the handler; another commits. What is computed and
//! not yet committed is kept by key, so that reading need not wait for the commit; the version compare in the commit
//! proves it. PostgreSQL: workers with a connection and a share of the keys each; reading ahead would gain nothing, since
//! the others use the time.

pub(crate) mod brokered;
mod joined;
mod pg_joined;
mod postgres;
mod sqlite;

use crate::{
    args::Spec,
    kafka::{self, is_kafka},
    postgres::is_postgres,
    rabbit::{self, is_rabbit},
    report::Side,
};

pub(crate) async fn run(spec: &Spec) -> anyhow::Result<Side> {
    if spec.transport.as_deref().is_some_and(is_rabbit) {
        return rabbit::baseline::run(spec).await;
    }
    if spec.transport.as_deref().is_some_and(is_kafka) {
        return kafka::baseline::run(spec).await;
    }
    anyhow::ensure!(spec.transport.is_none(), "there is no twin of the split layout yet");
    if is_postgres(&spec.store) { pg_joined::run(spec).await } else { joined::run(spec).await }
}
