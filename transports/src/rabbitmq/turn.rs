//! One process at a time changes exchanges and bindings, and the list of endpoints.

use super::{
    error::{code, failed},
    link::{Link, Live},
    names::{Names, short},
    options::RabbitOptions,
    registry::Endpoints,
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
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the list of a process that died in its turn may take to come back.
const RETURN: Duration = Duration::from_millis(100);

/// The turn, on a connection of its own: publishing the list on the one that receives would block the acks when the
/// broker is short of memory. The lock is a queue that belongs to the connection; the broker frees it when this process
/// dies, or when this is dropped.
pub(super) struct Turn {
    pub(super) live: Live,
    pub(super) list: Endpoints,
    channel: Channel,
    tag: Option<u64>,
    place: String,
    lock: String,
}

impl Turn {
    /// Waits for it, and reads the list.
    pub(super) async fn take(link: &Link, names: &Names, options: &RabbitOptions) -> Result<Self> {
        let live = link.fresh().await?;
        let channel = locked(&live, names, options).await?;
        let place = names.endpoints();
        let is_new = !topology::exists(&live, &place).await?;
        if is_new {
            topology::declare_list(&live, &place).await?;
        }
        let doing = "read the list of endpoints";
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| failed(doing, e))?;
        let mut turn = Self { live, list: Endpoints::default(), channel, tag: None, place, lock: names.lock() };
        for wait in [RETURN, RETURN * 4, Duration::ZERO] {
            turn.read().await?;
            if turn.tag.is_some() || is_new || wait.is_zero() {
                break;
            }
            // empty, and not new: whoever had it died a moment ago, and the broker has not put it back yet
            options.runtime.sleep(wait).await;
        }
        Ok(turn)
    }

    /// Everything that lies there, usually one message.
    async fn read(&mut self) -> Result<()> {
        let get = || async {
            let got = self.channel.basic_get(short(&self.place)?, Default::default()).await;
            got.map_err(|e| failed("read the list of endpoints", e))
        };
        while let Some(message) = get().await? {
            self.tag = Some(message.delivery.delivery_tag);
            // what is no list was not written by us
            self.list.merge(serde_json::from_slice(&message.delivery.data).unwrap_or_default());
        }
        Ok(())
    }

    /// Writes the list before what it says is done, so that whoever comes after a crash does it.
    pub(super) async fn note(&mut self) -> Result<()> {
        self.write().await?;
        let got = self.channel.basic_get(short(&self.place)?, Default::default()).await;
        self.tag = got.map_err(|e| failed("read the list of endpoints", e))?.map(|got| got.delivery.delivery_tag);
        Ok(())
    }

    /// Writes the list, and only then removes what was read.
    async fn write(&mut self) -> Result<()> {
        let doing = "write the list of endpoints";
        let body =
            serde_json::to_vec(&self.list).map_err(|e| Error::with_source(ErrorKind::Invalid, doing.to_string(), e))?;
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type(short("application/json")?);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let confirm = self
            .channel
            .basic_publish(short("")?, short(&self.place)?, options, &body, properties)
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
    pub(super) async fn end(mut self) -> Result<()> {
        self.write().await?;
        let _ = self.channel.queue_delete(short(&self.lock)?, QueueDeleteOptions::default()).await;
        // the lock went with the queue; the connection may end when it likes
        let _ = self.live.connection.close(200, "done".into()).await;
        Ok(())
    }
}

async fn locked(live: &Live, names: &Names, options: &RabbitOptions) -> Result<Channel> {
    let runtime = &options.runtime;
    let start = runtime.elapsed();
    loop {
        let channel = topology::open(live).await?;
        let name = short(names.lock())?;
        match channel.queue_declare(name, QueueDeclareOptions::exclusive(), FieldTable::default()).await {
            Ok(_) => return Ok(channel),
            Err(error) if code(&error) == Some(405) && runtime.elapsed() - start < PATIENCE => {
                runtime.sleep(Duration::from_millis(10) + runtime.jitter(Duration::from_millis(40))).await;
            }
            Err(error) => return Err(failed("wait for the turn to change bindings", error)),
        }
    }
}
