//! RabbitMQ: names of its own for each run, and what lies in the sink after it.

pub(crate) mod baseline;
pub(crate) mod sink;
mod window;

use anyhow::{Context as _, Result};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

/// Where the broker is, if the URL is `amqp://` and nothing else.
const VARIABLE: &str = "SAGABUS_RABBITMQ_URL";

/// The baseline's queues.
pub(crate) const IN: &str = "in";
pub(crate) const OUT: &str = "out";

pub(crate) fn is_rabbit(url: &str) -> bool {
    url.starts_with("amqp:") || url.starts_with("amqps:")
}

/// A connection, and the prefix of the URL.
pub(crate) struct Broker {
    connection: Connection,
    prefix: String,
}

impl Broker {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
        let connection = Connection::connect(base, ConnectionProperties::default()).await;
        Ok(Self { connection: connection.context("connect to rabbitmq")?, prefix: prefix.to_owned() })
    }

    pub(crate) async fn channel(&self) -> Result<Channel> {
        Ok(self.connection.create_channel().await?)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A queue as durable as the endpoint's.
    pub(crate) async fn declare(&self, name: &str) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let name = self.name(name);
        self.channel().await?.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }

    /// How many messages wait there.
    pub(crate) async fn waiting(&self, name: &str) -> Result<u64> {
        let options = QueueDeclareOptions::durable().passive();
        let queue = self.channel().await?.queue_declare(self.name(name).into(), options, FieldTable::default()).await?;
        Ok(queue.message_count().into())
    }

    async fn remove(&self) -> Result<()> {
        let channel = self.channel().await?;
        let endpoints = ["bench", "sink"].into_iter();
        let queues = endpoints.flat_map(|name| ["", ".error", ".unreadable"].map(|end| format!("{name}{end}")));
        for name in queues.chain([IN.to_owned(), OUT.to_owned(), "sagabus.endpoints".to_owned()]) {
            channel.queue_delete(self.name(&name).into(), QueueDeleteOptions::default()).await?;
        }
        for name in ["sagabus.events", "sagabus.events.queues", "sagabus.keyed", "sagabus.keyed.queues"] {
            channel.exchange_delete(self.name(name).into(), ExchangeDeleteOptions::default()).await?;
        }
        Ok(self.connection.close(200, "done".into()).await?)
    }
}

/// What a run has on the broker; it goes away with it.
pub(crate) struct Names {
    pub(crate) url: String,
}

impl Names {
    pub(crate) fn fresh(url: &str, number: usize) -> Result<Self> {
        let base = url.split(['?', '#']).next().unwrap_or(url);
        let base = if matches!(base, "amqp:" | "amqp://") {
            std::env::var(VARIABLE)
                .with_context(|| format!("{VARIABLE} names no broker: cargo xtask servers up --only rabbitmq"))?
        } else {
            base.to_owned()
        };
        Ok(Self { url: format!("{base}?prefix=bench-{}-{number}.", std::process::id()) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let removed = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(async { Broker::connect(&self.url).await?.remove().await }));
        if let Err(error) = removed {
            eprintln!("remove what the run has on the broker: {error:#}");
        }
    }
}
