//! The best program without a framework: rdkafka and sqlx, with an inbox, versions, and an outbox that is emptied by a later
//! commit. One thread receives; workers own partitions, with a database connection each. They do not wait for confirms: what
//! was committed lies in the outbox until the brokers have it, and only then are offsets committed.

use super::{
    IN, OUT,
    cluster::Cluster,
    feed::Feeder,
    publisher::{Publisher, Record, Ticket},
    sink,
};
use crate::{
    args::Spec,
    baseline::brokered::{self, Batch, Database, databases, handle},
    feed::{feed, preload},
    latency::Clock,
    measure::Span,
    payload::Input,
    postgres::Meter,
    profile::Profile,
    report::Side,
};
use anyhow::{Context as _, Result};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
    types::RDKafkaErrorCode,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Messages that are handed to a worker together, at most, and how often that may be ahead of it.
const CHUNK: usize = 256;
const CHUNKS: usize = 16;
/// Batches of a worker that are not confirmed yet.
const FLYING: usize = 8;

struct Message {
    partition: i32,
    offset: i64,
    id: uuid::Uuid,
    input: Input,
}

/// What the workers share.
struct Shop {
    spec: Spec,
    consumer: Arc<BaseConsumer>,
    topic: String,
    publisher: Publisher,
}

/// A batch on its way.
struct Flight {
    ticket: Arc<Ticket>,
    sent: Vec<uuid::Uuid>,
    /// The last offset of each partition.
    ends: BTreeMap<i32, i64>,
}

/// Handles everything that is in the topic, or comes into it.
pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    let mut spec = spec.clone();
    spec.batch = if spec.batch == 0 { 500 } else { spec.batch };
    spec.ahead = spec.ahead.max(1);
    let url = spec.transport.clone().context("the twin's cluster")?;
    let cluster = Cluster::of(&url)?;
    cluster.create(&[IN, OUT]).await?;
    let databases = databases(&spec).await?;
    let clock = Clock::start();
    // company is worth waiting for only where nobody waits for the message
    let linger = Duration::from_millis(if spec.feed.is_live() { 1 } else { 5 });
    let feeder = Feeder { publisher: Publisher::new(&cluster, IN, "bench.input", linger)?, keys: spec.keys };
    if !spec.feed.is_live() {
        preload(&feeder, spec.messages).await?;
        tokio::task::block_in_place(|| feeder.publisher.flush())?;
    }
    let seen = Arc::new(AtomicU64::new(0));
    let output_reader = spec.feed.is_live().then(|| {
        let (url, seen, messages) = (url.clone(), seen.clone(), spec.messages);
        tokio::spawn(async move { sink::read_outputs(&url, OUT, messages, clock, &seen).await })
    });
    let consumer = Arc::new(cluster.consumer(&cluster.group(IN))?);
    let shop = Arc::new(Shop {
        spec: spec.clone(),
        consumer: Arc::clone(&consumer),
        topic: cluster.topic(IN),
        publisher: Publisher::new(&cluster, OUT, "bench.output", linger)?,
    });
    let (mut workers, mut inboxes) = (Vec::new(), Vec::new());
    for database in databases {
        let (inbox, chunks) = mpsc::channel(CHUNKS);
        inboxes.push(inbox);
        workers.push(tokio::spawn(work(Arc::clone(&shop), database, chunks)));
    }
    let meter = Meter::start(&spec.store).await?;
    let profile = Profile::start();
    consumer.subscribe(&[&shop.topic])?;
    let (started, starts) = oneshot::channel();
    let dispatcher = {
        let shop = Arc::clone(&shop);
        std::thread::spawn(move || dispatch(&shop, &inboxes, started))
    };
    let span = starts.await.context("the receiving thread has ended")?;
    let generator = tokio::spawn(feed(feeder, spec.clone(), clock, seen));
    let mut commits = 0;
    for worker in workers {
        commits += worker.await??;
    }
    let mut side = Side::measured(&span, spec.messages, commits);
    drop(profile);
    if let Some(meter) = meter {
        meter.stop(spec.messages, &mut side.more).await?;
    }
    generator.await??;
    if let Some(output_reader) = output_reader {
        side.latencies = output_reader.await??.into_micros();
    }
    dispatcher.join().map_err(|_| anyhow::anyhow!("the receiving thread has panicked"))??;
    match tokio::task::block_in_place(|| consumer.commit_consumer_state(CommitMode::Sync)) {
        // the last offsets were committed meanwhile
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => return Err(error.into()),
    }
    brokered::audit(&spec, sink::left(&url, IN).await?, sink::count(&url, OUT).await?).await?;
    Ok(side)
}

/// To the worker that owns the partition, until all are through. The time begins with the first message; with a
/// generator, when it may begin.
fn dispatch(shop: &Shop, workers: &[mpsc::Sender<Vec<Message>>], started: oneshot::Sender<Span>) -> Result<()> {
    let mut started = Some(started);
    let mut chunks: Vec<Vec<Message>> = workers.iter().map(|_| Vec::new()).collect();
    let (mut count, mut held) = (0, 0);
    while count < shop.spec.messages {
        // what is held is handed on as soon as nothing more is there
        let patience = Duration::from_millis(if held > 0 { 0 } else { 50 });
        let record = shop.consumer.poll(patience).transpose()?;
        let begin = match &record {
            Some(_) => true,
            None => started.is_some() && shop.spec.feed.is_live() && shop.consumer.assignment()?.count() > 0,
        };
        if let Some(started) = started.take_if(|_| begin) {
            // whoever waits for it may have given up, and says why
            let _ = started.send(Span::start());
        }
        if let Some(record) = &record {
            let message = read(record)?;
            chunks[usize::try_from(message.partition)? % workers.len()].push(message);
            (count, held) = (count + 1, held + 1);
        }
        if held > 0 && (record.is_none() || held >= CHUNK || count == shop.spec.messages) {
            for (chunk, worker) in chunks.iter_mut().zip(workers).filter(|(chunk, _)| !chunk.is_empty()) {
                // a worker that failed says so itself
                let _ = worker.blocking_send(std::mem::take(chunk));
            }
            held = 0;
        }
    }
    Ok(())
}

fn read(record: &BorrowedMessage<'_>) -> Result<Message> {
    let headers = record.headers().context("an input without headers")?;
    let id = headers.iter().find(|header| header.key == "id").and_then(|header| header.value);
    let id = uuid::Uuid::from_slice(id.context("an input without an id")?)?;
    let input: Input = serde_json::from_slice(record.payload().unwrap_or_default())?;
    Ok(Message { partition: record.partition(), offset: record.offset(), id, input })
}

/// Takes what has come meanwhile, commits it, and sends.
async fn work(
    shop: Arc<Shop>,
    mut database: Option<Database>,
    mut chunks: mpsc::Receiver<Vec<Message>>,
) -> Result<u64> {
    let (mut commits, mut sent) = (0, Vec::new());
    let mut flying = VecDeque::new();
    let mut waiting: Vec<Message> = Vec::new();
    loop {
        while waiting.is_empty() {
            tokio::select! {
                biased;
                chunk = chunks.recv() => match chunk {
                    Some(chunk) => waiting = chunk,
                    None => {
                        land(&shop, &mut flying, 0, &mut sent).await?;
                        if let Some(database) = &mut database {
                            database.forget(sent).await?;
                        }
                        return Ok(commits);
                    }
                },
                landed = land(&shop, &mut flying, 0, &mut sent), if !flying.is_empty() => landed?,
            }
        }
        while waiting.len() < shop.spec.batch
            && let Ok(chunk) = chunks.try_recv()
        {
            waiting.extend(chunk);
        }
        let mut taken: Vec<Message> = waiting.drain(..shop.spec.batch.min(waiting.len())).collect();
        let ends = taken.iter().map(|message| (message.partition, message.offset)).collect();
        let messages = taken.drain(..).map(|message| (message.id, message.input));
        let mut batch = handle(&mut database, messages, shop.spec.work).await?;
        land(&shop, &mut flying, FLYING, &mut sent).await?;
        batch.sent = std::mem::take(&mut sent);
        let outputs = std::mem::take(&mut batch.outputs);
        commits += commit(&mut database, batch, &outputs).await?;
        let key = |id: &uuid::Uuid| id.as_u64_pair().1.to_be_bytes();
        let records: Vec<Record> = outputs.into_iter().map(|(id, body)| Record { key: key(&id), id, body }).collect();
        let ticket = shop.publisher.send(&records).await?;
        flying.push_back(Flight { ticket, sent: records.iter().map(|record| record.id).collect(), ends });
    }
}

async fn commit(database: &mut Option<Database>, batch: Batch, outputs: &[(uuid::Uuid, Vec<u8>)]) -> Result<u64> {
    let Some(database) = database else { return Ok(0) };
    database.commit(batch, outputs).await?;
    Ok(1)
}

/// Those that are through, and so many more that at most `most` fly: they need no outbox, and their offsets may be
/// committed, in order. Cancel-safe.
async fn land(shop: &Shop, flying: &mut VecDeque<Flight>, most: usize, sent: &mut Vec<uuid::Uuid>) -> Result<()> {
    while let Some(flight) = flying.front()
        && (flying.len() > most || flight.ticket.is_through())
    {
        flight.ticket.wait().await?;
        for (partition, offset) in &flight.ends {
            shop.consumer.store_offset(&shop.topic, *partition, *offset)?;
        }
        sent.extend(flying.pop_front().map(|flight| flight.sent).unwrap_or_default());
    }
    Ok(())
}
