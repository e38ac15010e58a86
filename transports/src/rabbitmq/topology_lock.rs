//! One process at a time changes exchanges and bindings, and the list of endpoints.

use super::{
    connection::{ConnectionManager, LiveConnection},
    endpoint_registry::EndpointRegistry,
    error::{code, failed},
    names::{Names, short},
    options::RabbitMqOptions,
    topology,
};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::time::Duration;

/// How long to wait for another process whose turn it is.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the list of a process that died in its turn may take to come back.
const REDELIVERY_WAIT: Duration = Duration::from_millis(100);

/// The turn, on a connection of its own: publishing the list on the one that receives would block the acks when the
/// broker is short of memory. The lock is a queue that belongs to the connection; the broker frees it when this process
/// dies, or when this is dropped.
pub(super) struct TopologyLock {
    pub(super) live: LiveConnection,
    pub(super) registry: EndpointRegistry,
    channel: Channel,
    tag: Option<u64>,
    queue: String,
    lock: String,
}

impl TopologyLock {
    /// Waits for it, and reads the list.
    pub(super) async fn acquire(link: &ConnectionManager, names: &Names, options: &RabbitMqOptions) -> Result<Self> {
        let live = link.open_single_use().await?;
        let channel = locked(&live, names, options).await?;
        let queue = names.endpoints();
        let is_new = !topology::exists(&live, &queue).await?;
        if is_new {
            topology::declare_list(&live, &queue).await?;
        }
        let doing = "read the list of endpoints";
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| failed(doing, e))?;
        let mut held =
            Self { live, registry: EndpointRegistry::default(), channel, tag: None, queue, lock: names.lock() };
        for wait in [REDELIVERY_WAIT, REDELIVERY_WAIT * 4, Duration::ZERO] {
            held.read().await?;
            if held.tag.is_some() || is_new || wait.is_zero() {
                break;
            }
            // empty, and not new: whoever had it died a moment ago, and the broker has not put it back yet
            options.runtime.sleep(wait).await;
        }
        Ok(held)
    }

    /// Everything that lies there, usually one message.
    async fn read(&mut self) -> Result<()> {
        let get = || async {
            let got = self.channel.basic_get(short(&self.queue)?, Default::default()).await;
            got.map_err(|e| failed("read the list of endpoints", e))
        };
        while let Some(message) = get().await? {
            self.tag = Some(message.delivery.delivery_tag);
            // what is no list was not written by us
            self.registry.merge(serde_json::from_slice(&message.delivery.data).unwrap_or_default());
        }
        Ok(())
    }

    /// Writes the list before what it says is done, so that whoever comes after a crash does it.
    pub(super) async fn record(&mut self) -> Result<()> {
        self.write().await?;
        let got = self.channel.basic_get(short(&self.queue)?, Default::default()).await;
        self.tag = got.map_err(|e| failed("read the list of endpoints", e))?.map(|got| got.delivery.delivery_tag);
        Ok(())
    }

    /// Writes the list, and only then removes what was read.
    async fn write(&mut self) -> Result<()> {
        let doing = "write the list of endpoints";
        let body = serde_json::to_vec(&self.registry)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, doing.to_string(), e))?;
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type(short("application/json")?);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let confirm = self
            .channel
            .basic_publish(short("")?, short(&self.queue)?, options, &body, properties)
            .await
            .map_err(|e| failed(doing, e))?;
        match confirm.await.map_err(|e| failed(doing, e))? {
            Confirmation::Ack(None) => {}
            other => {
                let what = if other.is_nack() { "refused" } else { "returned" };
                return Err(Error::new(ErrorKind::Transient, format!("{doing}: rabbitmq {what} it")));
            }
        }
        if let Some(old) = self.tag.take() {
            self.channel.basic_ack(old, BasicAckOptions { multiple: true }).await.map_err(|e| failed(doing, e))?;
        }
        Ok(())
    }

    /// Gives it to the next one. Also what was only read is written: putting it back would count as a delivery, and
    /// RabbitMQ 4 drops the twentieth.
    pub(super) async fn release(mut self) -> Result<()> {
        self.write().await?;
        let _ = self.channel.queue_delete(short(&self.lock)?, QueueDeleteOptions::default()).await;
        // the lock went with the queue; the connection may end when it likes
        let _ = self.live.connection.close(200, "done".into()).await;
        Ok(())
    }
}

async fn locked(live: &LiveConnection, names: &Names, options: &RabbitMqOptions) -> Result<Channel> {
    let runtime = &options.runtime;
    let start = runtime.elapsed();
    loop {
        let channel = topology::open(live).await?;
        let name = short(names.lock())?;
        match channel.queue_declare(name, QueueDeclareOptions::exclusive(), FieldTable::default()).await {
            Ok(_) => return Ok(channel),
            Err(error) if code(&error) == Some(405) && runtime.elapsed() - start < LOCK_TIMEOUT => {
                runtime.sleep(Duration::from_millis(10) + runtime.jitter(Duration::from_millis(40))).await;
            }
            Err(error) => return Err(failed("wait for the turn to change bindings", error)),
        }
    }
}
