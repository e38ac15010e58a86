//! Stores and transports by their URLs.

use super::handlers::{CountingSaga, drop_output, pass_on};
use crate::{
    args::{Spec, Work},
    broker::is_broker,
    postgres::is_postgres,
};
use anyhow::{Context as _, Result, bail};
use sagabus::{
    Endpoint, EndpointBuilder, Runtime,
    ports::{Queues, Store},
    store::{
        memory::MemoryStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    transport::sql::{SqlOptions, SqlTransport},
};
use std::sync::Arc;

/// The endpoint under test, and its queue.
pub(super) const NAME: &str = "bench";
/// Where the outputs go.
pub(super) const SINK: &str = "sink";

/// What the endpoints of a run stand on.
#[derive(Clone)]
pub(super) struct Fixture {
    /// None: at least once.
    store: Option<Arc<dyn Store>>,
    /// The other file of the split layout.
    bus: Option<Arc<dyn Store>>,
    /// The broker's address.
    broker: Option<String>,
}

async fn open(url: &str) -> Result<Arc<dyn Store>> {
    if url.starts_with("memory:") {
        return Ok(Arc::new(MemoryStore::new(Runtime::system())));
    }
    if url.starts_with("sqlite:") {
        return Ok(SqliteStore::open(url, SqliteOptions::default()).await?);
    }
    if is_postgres(url) {
        return Ok(Arc::new(PostgresStore::open(url, PostgresOptions::default()).await?));
    }
    bail!("{url}: known are sqlite://file.db, postgres://host/database and memory://name")
}

impl Fixture {
    pub(super) async fn open(spec: &Spec) -> Result<Self> {
        let store = if spec.is_bare() { None } else { Some(open(&spec.store).await?) };
        let bus = match &spec.transport {
            Some(url) if *url != spec.store && !is_broker(url) => Some(open(url).await?),
            _ => None,
        };
        if let Some(bus) = &bus {
            bus.migrate().await?;
        }
        let broker = spec.transport.clone().filter(|url| is_broker(url));
        Ok(Self { store, bus, broker })
    }

    /// Whether what was handled is sent after its commit.
    pub(super) fn is_split(&self) -> bool {
        self.store.is_some() && (self.bus.is_some() || self.broker.is_some())
    }

    pub(super) fn store(&self) -> Result<&Arc<dyn Store>> {
        self.store.as_ref().context("there is no store")
    }

    pub(super) fn queues(&self) -> Result<Arc<dyn Queues>> {
        self.bus
            .as_ref()
            .or(self.store.as_ref())
            .and_then(|store| store.queues())
            .context("the transport has no queues to look into")
    }

    fn on(&self, builder: EndpointBuilder) -> EndpointBuilder {
        let builder = match &self.store {
            Some(store) => builder.store(store.clone()),
            None => builder.at_least_once(),
        };
        if let Some(broker) = &self.broker {
            return builder.transport(broker.as_str());
        }
        match self.bus.as_ref().and_then(|bus| bus.queues()) {
            Some(queues) => builder.transport(Arc::new(SqlTransport::new(queues, SqlOptions::default()))),
            None => builder,
        }
    }

    /// The endpoint under test.
    pub(super) fn endpoint(&self, spec: &Spec) -> EndpointBuilder {
        let builder = self.on(Endpoint::builder(NAME));
        let builder = match spec.work {
            Work::Queue => builder.on(pass_on),
            Work::Saga | Work::Timers => builder.saga::<CountingSaga>(),
        };
        let builder = builder.route::<crate::payload::Output>(SINK);
        if spec.batch > 0 { builder.batch(spec.batch) } else { builder }
    }

    /// Queues and tables that the run needs.
    pub(super) async fn prepare(&self, spec: &Spec) -> Result<()> {
        self.on(Endpoint::builder(SINK)).on(drop_output).build().await?;
        if spec.own_sql {
            super::handlers::write_own_rows(&spec.store);
            super::audit::create_business(spec).await?;
        }
        Ok(())
    }

    /// The last row of the sink's queue.
    pub(super) async fn tail_start(&self) -> Result<i64> {
        if self.broker.is_some() {
            return Ok(0);
        }
        let queues = self.queues()?;
        let shards: Vec<u16> = (0..sagabus::ports::SHARDS).collect();
        let mut last = 0;
        loop {
            match queues.read(SINK, &shards, last, 10_000).await?.last() {
                Some(row) => last = row.id,
                None => return Ok(last),
            }
        }
    }
}
