//! Reads the sink as another program would: for the moments at which outputs are there, and for the audit.

use super::Broker;
use crate::{
    latency::{Clock, Latencies},
    payload::Output,
};
use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What came out so far, in this process: every output, and the different ones.
#[derive(Default)]
struct Found {
    out: u64,
    distinct: HashSet<u64>,
}

static FOUND: Mutex<Option<Found>> = Mutex::new(None);

fn note(output: &Output) {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let found = found.get_or_insert_default();
    found.out += 1;
    found.distinct.insert(output.seq);
}

/// Takes outputs out of a queue until `messages` of this run were there, and notes when; `seen` counts them.
pub(crate) async fn read_outputs(
    url: &str,
    queue: &str,
    messages: u64,
    clock: Clock,
    seen: &AtomicU64,
) -> Result<Latencies> {
    let broker = Broker::connect(url).await?;
    let mut latencies = Latencies::default();
    let mut count = 0;
    read(&broker, queue, |output| {
        // those of the warm-up have higher numbers
        if output.seq <= messages {
            latencies.extend(std::iter::once(clock.micros().saturating_sub(output.at)));
            count += 1;
            seen.store(count, Ordering::Release);
        }
        count < messages
    })
    .await?;
    Ok(latencies)
}

/// How many outputs there were in all, and how many different ones. Empties the queue.
pub(crate) async fn count(url: &str, queue: &str) -> Result<(i64, i64)> {
    let broker = Broker::connect(url).await?;
    let mut left = broker.waiting(queue).await?;
    if left > 0 {
        read(&broker, queue, |_| {
            left -= 1;
            left > 0
        })
        .await?;
    }
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let found = found.get_or_insert_default();
    Ok((i64::try_from(found.out)?, i64::try_from(found.distinct.len())?))
}

/// How many wait in a queue, once its consumers have ended.
pub(crate) async fn left(url: &str, queue: &str) -> Result<i64> {
    Ok(i64::try_from(Broker::connect(url).await?.waiting(queue).await?)?)
}

async fn read(broker: &Broker, queue: &str, mut more: impl FnMut(&Output) -> bool) -> Result<()> {
    let channel = broker.channel().await?;
    channel.basic_qos(1000, BasicQosOptions::default()).await?;
    let (name, tag) = (broker.name(queue).into(), "tail".into());
    let mut consumer = channel.basic_consume(name, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let mut unacked = 0;
    loop {
        let delivery = consumer.next().await.context("the sink's queue is gone")??;
        let output: Output = serde_json::from_slice(&delivery.data)?;
        note(&output);
        let more = more(&output);
        unacked += 1;
        if unacked >= 200 || !more {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            unacked = 0;
        }
        if !more {
            channel.close(200, "done".into()).await?;
            return Ok(());
        }
    }
}
