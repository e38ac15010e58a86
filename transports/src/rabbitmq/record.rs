//! Which bindings were made, kept on the broker itself, since AMQP cannot list them.
//!
//! The queue `<endpoint>.bindings` holds one message: the list. Whoever changes bindings holds the lock. First the list
//! is widened, then bindings change, then the list is narrowed; so a crash in between leaves it too wide at most, and the
//! next one finishes the work.

use super::{
    error::failed,
    names::{Names, short},
    topology::Binding,
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// Makes these bindings, and removes those that earlier ones of this queue made and that are not wanted any more.
pub(super) async fn apply(channel: &Channel, names: &Names, queue: &str, wanted: &BTreeSet<Binding>) -> Result<()> {
    let doing = format!("bind queue {queue}");
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| failed(&doing, e))?;
    let place = names.bindings(queue);
    let (known, mut tag) = read(channel, &place).await?;
    if !wanted.is_subset(&known) {
        let all: BTreeSet<Binding> = known.union(wanted).cloned().collect();
        replace(channel, &place, &all, tag).await?;
        tag = read(channel, &place).await?.1;
    }
    bind(channel, wanted).await?;
    let stale: BTreeSet<Binding> = known.difference(wanted).cloned().collect();
    for (queue, _, key) in &stale {
        tracing::info!(queue, key, "the subscription has ended: its binding is removed");
    }
    unbind(channel, &stale).await?;
    // also when nothing changed: putting back what was read would count as a delivery, and RabbitMQ 4 drops the twentieth
    replace(channel, &place, wanted, tag).await
}

/// Everything that lies there, usually one message, and the tag of the last one.
async fn read(channel: &Channel, place: &str) -> Result<(BTreeSet<Binding>, Option<u64>)> {
    let mut known = BTreeSet::new();
    let mut last = None;
    let get =
        || async { channel.basic_get(short(place)?, Default::default()).await.map_err(|e| failed("read bindings", e)) };
    while let Some(message) = get().await? {
        last = Some(message.delivery.delivery_tag);
        // what is no list was not written by us
        known.extend(serde_json::from_slice::<Vec<Binding>>(&message.delivery.data).unwrap_or_default());
    }
    Ok((known, last))
}

/// Writes the new list, and only then removes the old one.
async fn replace(channel: &Channel, place: &str, list: &BTreeSet<Binding>, old: Option<u64>) -> Result<()> {
    let doing = "write down bindings";
    let body = serde_json::to_vec(&list).map_err(|e| Error::with_source(ErrorKind::Invalid, "encode bindings", e))?;
    let properties = BasicProperties::default().with_delivery_mode(2).with_content_type(short("application/json")?);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel
        .basic_publish(short("")?, short(place)?, options, &body, properties)
        .await
        .map_err(|e| failed(doing, e))?;
    match confirm.await.map_err(|e| failed(doing, e))? {
        Confirmation::Ack(None) => {}
        other => {
            let what = if other.is_nack() { "refused" } else { "returned" };
            return Err(Error::new(ErrorKind::Transient, format!("{doing}: rabbitmq {what} the list")));
        }
    }
    if let Some(old) = old {
        channel.basic_ack(old, BasicAckOptions { multiple: true }).await.map_err(|e| failed(doing, e))?;
    }
    Ok(())
}

pub(super) async fn bind(channel: &Channel, bindings: &BTreeSet<Binding>) -> Result<()> {
    let bind = |(queue, exchange, key): &Binding| {
        let names = (|| Ok((short(queue)?, short(exchange)?, short(key)?)))();
        async move {
            let (queue, exchange, key) = names?;
            let doing = format!("bind {queue} to {exchange}");
            let made = channel.queue_bind(queue, exchange, key, Default::default(), FieldTable::default()).await;
            made.map_err(|error| failed(doing, error))
        }
    };
    try_join_all(bindings.iter().map(bind)).await.map(|_| ())
}

async fn unbind(channel: &Channel, bindings: &BTreeSet<Binding>) -> Result<()> {
    for (queue, exchange, key) in bindings {
        // unbinding what is not bound, or from a queue that is gone, is fine with the broker
        channel
            .queue_unbind(short(queue)?, short(exchange)?, short(key)?, FieldTable::default())
            .await
            .map_err(|error| failed(format!("unbind {queue} from {exchange}"), error))?;
    }
    Ok(())
}
