//! Exchanges, queues and bindings.

use super::{
    error::{code, failed},
    link::Live,
    names::{Names, short, word},
    options::RabbitOptions,
    record,
};
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use sagabus_core::{Error, ErrorKind, Result, SHARDS, Topology};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// How often the broker tries to hand out what lies in the error queue, before it sets it aside for good.
const ERROR_LIMIT: u32 = 3;

/// How long to wait for another process that changes the same bindings.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A binding: queue, exchange, routing key.
pub(super) type Binding = (String, String, String);

/// Declares the two exchanges; on a channel of its own, which a conflict closes.
pub(super) async fn declare_exchanges(live: &Live, names: &Names) -> Result<()> {
    let channel = open(live).await?;
    for exchange in [names.events(), names.keyed()] {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(short(&exchange)?, ExchangeKind::Topic, options, FieldTable::default())
            .await
            .map_err(|error| conflict("exchange", &exchange, error))?;
    }
    done(&channel).await;
    Ok(())
}

/// A queue that belongs to this connection and goes away with it, with its bindings.
pub(super) async fn declare_temporary(live: &Live, names: &Names, queue: &str, topics: &[String]) -> Result<()> {
    let channel = open(live).await?;
    let name = names.queue(queue);
    channel
        .queue_declare(short(&name)?, QueueDeclareOptions::exclusive(), FieldTable::default())
        .await
        .map_err(|error| conflict("queue", &name, error))?;
    let mut wanted = BTreeSet::new();
    for topic in topics {
        wanted.insert((name.clone(), names.events(), topic.clone()));
        wanted.insert((name.clone(), names.keyed(), format!("t.{topic}.*")));
    }
    record::bind(&channel, &wanted).await?;
    done(&channel).await;
    Ok(())
}

/// The queues of an endpoint and its bindings. Nothing that holds messages is ever deleted or changed.
pub(super) async fn provision(live: &Live, names: &Names, options: &RabbitOptions, topology: &Topology) -> Result<()> {
    let Some(queue) = &topology.queue else { return Ok(()) };
    declare_exchanges(live, names).await?;
    let channel = open(live).await?;
    let (error, unreadable) = (names.error(queue), names.unreadable(queue));
    declare_quorum(&channel, &unreadable, None).await?;
    declare_quorum(&channel, &error, Some((ERROR_LIMIT, &unreadable))).await?;
    let limit = Some((options.delivery_limit, error.as_str()));
    declare_quorum(&channel, &names.queue(queue), limit).await?;
    declare_quorum(&channel, &names.bindings(queue), None).await?;
    if topology.ordered {
        for number in 0..options.partitions {
            declare_partition(&channel, &names.partition(queue, number), limit).await?;
        }
    }
    let wanted = bindings(names, queue, topology, options.partitions);
    let lock = take_lock(live, names, queue, options).await?;
    let changed = record::apply(&channel, names, queue, &wanted).await;
    let _ = lock.queue_delete(short(&names.lock(queue))?, QueueDeleteOptions::default()).await;
    done(&lock).await;
    changed?;
    done(&channel).await;
    Ok(())
}

/// What the topology asks for. Unordered: everything into the one queue. Ordered: what has a key into the partition of
/// its shard.
fn bindings(names: &Names, queue: &str, topology: &Topology, partitions: u16) -> BTreeSet<Binding> {
    let (own, keyed) = (names.queue(queue), names.keyed());
    let mut wanted = BTreeSet::new();
    for topic in &topology.subscriptions {
        wanted.insert((own.clone(), names.events(), topic.clone()));
    }
    let sources = topology.subscriptions.iter().map(|t| format!("t.{t}")).chain([format!("q.{queue}")]);
    for source in sources {
        if topology.ordered {
            for shard in 0..SHARDS {
                let partition = names.partition(queue, shard % partitions.max(1));
                wanted.insert((partition, keyed.clone(), format!("{source}.{}", word(shard))));
            }
        } else {
            wanted.insert((own.clone(), keyed.clone(), format!("{source}.*")));
        }
    }
    wanted
}

/// The lock is a queue that belongs to the connection: the broker frees it when this process dies.
async fn take_lock(live: &Live, names: &Names, queue: &str, options: &RabbitOptions) -> Result<Channel> {
    let runtime = &options.runtime;
    let start = runtime.elapsed();
    loop {
        let channel = open(live).await?;
        let name = short(&names.lock(queue))?;
        match channel.queue_declare(name, QueueDeclareOptions::exclusive(), FieldTable::default()).await {
            Ok(_) => return Ok(channel),
            Err(error) if code(&error) == Some(405) && runtime.elapsed() - start < LOCK_PATIENCE => {
                runtime.sleep(Duration::from_millis(20) + runtime.jitter(Duration::from_millis(60))).await;
            }
            Err(error) => return Err(failed(format!("wait for the turn to bind queue {queue}"), error)),
        }
    }
}

async fn declare_quorum(channel: &Channel, name: &str, limit: Option<(u32, &str)>) -> Result<()> {
    declare(channel, name, limit, false).await
}

async fn declare_partition(channel: &Channel, name: &str, limit: Option<(u32, &str)>) -> Result<()> {
    declare(channel, name, limit, true).await
}

async fn declare(channel: &Channel, name: &str, limit: Option<(u32, &str)>, single: bool) -> Result<()> {
    let mut arguments = vec![("x-queue-type", Value::from("quorum"))];
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
    let mut table = FieldTable::default();
    for (name, value) in arguments {
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
pub(super) async fn probe(live: &Live, names: &Names, queue: &str) -> Result<(u16, bool)> {
    let mut partitions = 0;
    while partitions < SHARDS && exists(live, &names.partition(queue, partitions)).await? {
        partitions += 1;
    }
    Ok((partitions, exists(live, &names.error(queue)).await?))
}

/// Asks on a channel of its own, since a no closes it.
async fn exists(live: &Live, name: &str) -> Result<bool> {
    let channel = open(live).await?;
    let options = QueueDeclareOptions::durable().passive();
    match channel.queue_declare(short(name)?, options, FieldTable::default()).await {
        Ok(_) => {
            done(&channel).await;
            Ok(true)
        }
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(failed(format!("look for queue {name}"), error)),
    }
}

pub(super) async fn open(live: &Live) -> Result<Channel> {
    live.connection.create_channel().await.map_err(|error| failed("open a rabbitmq channel", error))
}

async fn done(channel: &Channel) {
    // it goes away with the connection in any case
    let _ = channel.close(200, "done".into()).await;
}

fn conflict(what: &str, name: &str, error: lapin::Error) -> Error {
    if code(&error) != Some(406) {
        return failed(format!("declare {what} {name}"), error);
    }
    let text = format!(
        "{what} {name} exists with other settings than sagabus gives it, and was left as it is: drain and delete it, or \
         set back what was changed (the URL's `delivery_limit`?), or use another `prefix`. The broker says: {error}"
    );
    Error::with_source(ErrorKind::Invalid, text, error)
}
