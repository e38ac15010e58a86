//! Exchanges, queues and bindings.

use super::{
    connection::LiveConnection,
    endpoint_registry::Binding,
    error::{code, failed},
    names::{Names, short},
};
use futures::future::try_join_all;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sagabus_core::{Error, ErrorKind, Result, SHARDS};
use serde_json::Value;
use std::collections::BTreeSet;

/// So many times the limit of the endpoint's own queue is that of its partitions. What the broker takes out of its own queue
/// comes once more; what has an order would come behind its successors. And a process that starts cannot begin with one message
/// there, so that each end of one counts for all that was sent ahead: a hundred of them in 75 seconds, with more coming in
/// than went out, had 529 good messages set aside at a limit of 20.
const PARTITION_LIMIT_FACTOR: u32 = 10;

/// How often the broker tries to hand out what lies in the error queue, before it sets it aside for good.
const ERROR_QUEUE_DELIVERY_LIMIT: u32 = 5;

/// Declares the exchanges; on a channel of its own, which a conflict closes. What is published reaches no queue before
/// [`connect`].
pub(super) async fn declare_exchanges(live: &LiveConnection, names: &Names) -> Result<()> {
    let channel = open(live).await?;
    for exchange in names.exchanges().into_iter().flat_map(|(front, behind)| [front, behind]) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(short(&exchange)?, ExchangeKind::Topic, options, FieldTable::default())
            .await
            .map_err(|error| conflict("exchange", &exchange, error))?;
    }
    done(&channel).await;
    Ok(())
}

/// Whether all exchanges are there.
pub(super) async fn complete(live: &LiveConnection, names: &Names) -> Result<bool> {
    let channel = open(live).await?;
    for exchange in names.exchanges().into_iter().flat_map(|(front, behind)| [front, behind]) {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        match channel.exchange_declare(short(&exchange)?, ExchangeKind::Topic, options, FieldTable::default()).await {
            Ok(()) => {}
            Err(error) if code(&error) == Some(404) => return Ok(false),
            Err(error) => return Err(failed(format!("look for exchange {exchange}"), error)),
        }
    }
    done(&channel).await;
    Ok(true)
}

/// Puts the exchanges with the queues behind those that are published to: the last step, after all queues are bound. So
/// an event reaches all of its subscribers or none, and none is noticed.
pub(super) async fn connect(live: &LiveConnection, names: &Names) -> Result<()> {
    let channel = open(live).await?;
    for (front, behind) in names.exchanges() {
        let (to, from) = (short(&behind)?, short(&front)?);
        let bound = channel.exchange_bind(to, from, short("#")?, Default::default(), FieldTable::default()).await;
        bound.map_err(|error| failed(format!("bind exchange {behind} to {front}"), error))?;
    }
    done(&channel).await;
    Ok(())
}

/// A queue that belongs to this connection and goes away with it, with its bindings.
pub(super) async fn declare_temporary(
    live: &LiveConnection,
    names: &Names,
    queue: &str,
    topics: &[String],
) -> Result<()> {
    let channel = open(live).await?;
    let name = names.queue(queue);
    channel
        .queue_declare(short(&name)?, QueueDeclareOptions::exclusive(), FieldTable::default())
        .await
        .map_err(|error| conflict("queue", &name, error))?;
    let mut wanted = BTreeSet::new();
    for topic in topics {
        wanted.insert((name.clone(), names.events_bound(), topic.clone()));
        wanted.insert((name.clone(), names.keyed_bound(), format!("t.{topic}.*")));
    }
    bind_on(&channel, &wanted).await?;
    done(&channel).await;
    Ok(())
}

/// The queues of an endpoint. Nothing that holds messages is ever deleted or changed.
pub(super) async fn declare_queues(
    live: &LiveConnection,
    names: &Names,
    queue: &str,
    limit: u32,
    partitions: u16,
) -> Result<()> {
    let channel = open(live).await?;
    let (error, unreadable) = (names.error(queue), names.unreadable(queue));
    declare_quorum(&channel, &unreadable, None).await?;
    declare_quorum(&channel, &error, Some((ERROR_QUEUE_DELIVERY_LIMIT, &unreadable))).await?;
    let to_errors = |limit| Some((limit, error.as_str()));
    declare_quorum(&channel, &names.queue(queue), to_errors(limit)).await?;
    for number in 0..partitions {
        let limit = to_errors(limit.saturating_mul(PARTITION_LIMIT_FACTOR));
        declare_partition(&channel, &names.partition(queue, number), limit).await?;
    }
    done(&channel).await;
    Ok(())
}

/// The queue with the list of endpoints.
pub(super) async fn declare_list(live: &LiveConnection, name: &str) -> Result<()> {
    let channel = open(live).await?;
    declare_quorum(&channel, name, None).await?;
    done(&channel).await;
    Ok(())
}

/// Makes bindings; false if one of the queues does not exist.
pub(super) async fn bind(live: &LiveConnection, bindings: &BTreeSet<Binding>) -> Result<bool> {
    let channel = open(live).await?;
    match bind_on(&channel, bindings).await {
        Ok(()) => {
            done(&channel).await;
            Ok(true)
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn bind_on(channel: &Channel, bindings: &BTreeSet<Binding>) -> Result<()> {
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

pub(super) async fn unbind(live: &LiveConnection, bindings: &BTreeSet<Binding>) -> Result<()> {
    if bindings.is_empty() {
        return Ok(());
    }
    let channel = open(live).await?;
    for (queue, exchange, key) in bindings {
        tracing::info!(queue, key, "the subscription has ended: its binding is removed");
        // unbinding what is not bound, or from a queue that is gone, is fine with the broker
        channel
            .queue_unbind(short(queue)?, short(exchange)?, short(key)?, FieldTable::default())
            .await
            .map_err(|error| failed(format!("unbind {queue} from {exchange}"), error))?;
    }
    done(&channel).await;
    Ok(())
}

async fn declare_quorum(channel: &Channel, name: &str, limit: Option<(u32, &str)>) -> Result<()> {
    declare(channel, name, limit, false).await
}

async fn declare_partition(channel: &Channel, name: &str, limit: Option<(u32, &str)>) -> Result<()> {
    declare(channel, name, limit, true).await
}

async fn declare(channel: &Channel, name: &str, limit: Option<(u32, &str)>, single: bool) -> Result<()> {
    let mut arguments = Vec::new();
    if let Some((limit, target)) = limit {
        arguments.extend([
            // through the default exchange, straight into the target: nothing in between that could be deleted
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", target.into()),
            // the other strategy loses what is on its way while the broker stops
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
            ("x-delivery-limit", limit.into()),
        ]);
    }
    if single {
        arguments.push(("x-single-active-consumer", true.into()));
    }
    declare_queue(channel, name, arguments).await
}

/// A quorum queue.
pub(super) async fn declare_queue(channel: &Channel, name: &str, arguments: Vec<(&str, Value)>) -> Result<()> {
    let mut table = FieldTable::default();
    for (name, value) in arguments.into_iter().chain([("x-queue-type", "quorum".into())]) {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.into()),
            Value::Bool(value) => AMQPValue::Boolean(value),
            value => AMQPValue::LongLongInt(value.as_i64().unwrap_or(0)),
        };
        table.insert(short(name)?, value);
    }
    match channel.queue_declare(short(name)?, QueueDeclareOptions::durable(), table).await {
        Ok(_) => Ok(()),
        Err(error) => Err(conflict("queue", name, error)),
    }
}

/// How many partitions the queue has, and whether it has an error queue.
pub(super) async fn probe(live: &LiveConnection, names: &Names, queue: &str) -> Result<(u16, bool)> {
    let mut partitions = 0;
    while partitions < SHARDS && exists(live, &names.partition(queue, partitions)).await? {
        partitions += 1;
    }
    Ok((partitions, exists(live, &names.error(queue)).await?))
}

pub(super) async fn exists(live: &LiveConnection, name: &str) -> Result<bool> {
    Ok(waiting(live, name).await?.is_some())
}

/// How many messages wait in a queue, if it exists. Asks on a channel of its own, since a no closes it.
pub(super) async fn waiting(live: &LiveConnection, name: &str) -> Result<Option<u32>> {
    let channel = open(live).await?;
    let options = QueueDeclareOptions::durable().passive();
    match channel.queue_declare(short(name)?, options, FieldTable::default()).await {
        Ok(queue) => {
            done(&channel).await;
            Ok(Some(queue.message_count()))
        }
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(failed(format!("look for queue {name}"), error)),
    }
}

pub(super) async fn open(live: &LiveConnection) -> Result<Channel> {
    live.connection.create_channel().await.map_err(|error| failed("open a rabbitmq channel", error))
}

pub(super) async fn done(channel: &Channel) {
    // it goes away with the connection in any case
    let _ = channel.close(200, "done".into()).await;
}

pub(super) fn conflict(what: &str, name: &str, error: lapin::Error) -> Error {
    if code(&error) != Some(406) {
        return failed(format!("declare {what} {name}"), error);
    }
    let text = format!(
        "{what} {name} exists with other settings than sagabus gives it, and was left as it is: drain and delete it, or \
         set back what was changed (the URL's `delivery_limit`?), or use another `prefix`. The broker says: {error}"
    );
    Error::with_source(ErrorKind::Invalid, text, error)
}
