//! Reads topics as another program would: for the moments at which outputs are there, and for the audit.

use super::cluster::{Cluster, PATIENCE};
use crate::{
    latency::{Clock, Latencies},
    payload::Output,
};
use anyhow::{Context as _, Result, bail};
use rdkafka::{Message as _, Offset, TopicPartitionList, consumer::Consumer as _};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Reads outputs until `messages` of this run were there, and notes when; `seen` counts them.
pub(crate) async fn read_outputs(
    url: &str,
    queue: &str,
    messages: u64,
    clock: Clock,
    seen: &AtomicU64,
) -> Result<Latencies> {
    let mut outputs = Outputs::read(url, queue).await?;
    let mut latencies = Latencies::default();
    let mut count = 0;
    while count < messages {
        let (output, at) = outputs.next(clock).await?;
        // those of the warm-up have higher numbers
        if output.seq <= messages {
            latencies.extend(std::iter::once(at.saturating_sub(output.at)));
            count += 1;
            seen.store(count, Ordering::Release);
        }
    }
    Ok(latencies)
}

/// How many outputs there were in all, and how many different ones.
pub(crate) async fn count(url: &str, queue: &str) -> Result<(i64, i64)> {
    let cluster = Cluster::of(url)?;
    let out: i64 = cluster.ends(&cluster.topic(queue)).await?.iter().sum();
    let mut distinct = HashSet::new();
    let mut outputs = Outputs::read(url, queue).await?;
    let clock = Clock::start();
    for _ in 0..out {
        distinct.insert(outputs.next(clock).await?.0.seq);
    }
    Ok((out, i64::try_from(distinct.len())?))
}

/// How many its group has not finished, once its consumers have ended.
pub(crate) async fn left(url: &str, queue: &str) -> Result<i64> {
    let cluster = Cluster::of(url)?;
    let topic = cluster.topic(queue);
    let ends = cluster.ends(&topic).await?;
    let consumer = cluster.consumer(&cluster.group(queue))?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(ends.len())? {
        list.add_partition(&topic, partition);
    }
    let list = tokio::task::block_in_place(|| consumer.committed_offsets(list, PATIENCE))?;
    let at = |offset| if let Offset::Offset(at) = offset { at } else { 0 };
    Ok(ends.iter().sum::<i64>() - list.elements().iter().map(|entry| at(entry.offset())).sum::<i64>())
}

/// What a topic has, and what comes into it, read on a thread of its own.
struct Outputs {
    bodies: mpsc::UnboundedReceiver<Result<Vec<u8>>>,
    done: Arc<AtomicBool>,
}

impl Outputs {
    async fn read(url: &str, queue: &str) -> Result<Self> {
        let cluster = Cluster::of(url)?;
        let topic = cluster.topic(queue);
        let ends = cluster.ends(&topic).await?;
        // its group never commits: nothing is stored
        let consumer = cluster.consumer(&cluster.group("tail"))?;
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(ends.len())? {
            list.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let done = Arc::new(AtomicBool::new(false));
        let (sender, bodies) = mpsc::unbounded_channel();
        let stop = Arc::clone(&done);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let body = match consumer.poll(Duration::from_millis(50)) {
                    None => continue,
                    Some(Ok(record)) => Ok(record.payload().unwrap_or_default().to_vec()),
                    Some(Err(error)) => Err(error.into()),
                };
                if sender.send(body).is_err() {
                    break;
                }
            }
        });
        Ok(Self { bodies, done })
    }

    /// The next one, and when it was there.
    async fn next(&mut self, clock: Clock) -> Result<(Output, u64)> {
        let Ok(body) = tokio::time::timeout(PATIENCE * 3, self.bodies.recv()).await else {
            bail!("the sink's topic has no more outputs")
        };
        let body = body.context("the sink's reader has ended")??;
        Ok((serde_json::from_slice(&body)?, clock.micros()))
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
    }
}
