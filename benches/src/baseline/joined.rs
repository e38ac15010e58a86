//! Queue and store in one file.

use super::sqlite::{Batch, IN, OUT, Reader, Writer, connect, create};
use crate::{
    args::{Spec, Work},
    feed::{Sender, feed},
    files::file_of,
    latency::{Clock, Latencies},
    measure::Span,
    payload::{Counter, Input, Output, key_of},
    profile::Profile,
    report::Side,
};
use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// What the writer gets.
enum Job {
    Commit(Batch),
    Enqueue(Vec<(uuid::Uuid, Vec<u8>)>),
}

/// States that are computed and perhaps not yet committed: version, state, in how many batches.
type Ahead = HashMap<u64, (i64, Counter, usize)>;

/// Creates the file with all sagas in it, and fills the queue.
async fn prepare(path: &Path, spec: &Spec) -> Result<()> {
    create(path).await?;
    let mut writer = Writer::open(path, 500).await?;
    let all: Vec<u64> = (0..spec.keys).collect();
    for chunk in all.chunks(500) {
        let sagas = chunk.iter().map(|key| {
            let mut state = Counter::default();
            // a state of full size, that has not counted anything yet
            state.handle(&Input::new(*key, 0, 0));
            state.count = 0;
            Ok((*key, 0, 1, serde_json::to_string(&state)?))
        });
        writer.commit(Batch { sagas: sagas.collect::<Result<Vec<_>>>()?, ..Batch::default() }).await?;
    }
    let all: Vec<u64> = (1..=if spec.feed.is_live() { 0 } else { spec.messages }).collect();
    for chunk in all.chunks(500) {
        writer.enqueue(IN, encode(chunk.iter().map(|seq| (*seq, 0)), spec.keys)?).await?;
    }
    let mut connection = connect(path).await?;
    sqlx::raw_sql("pragma wal_checkpoint(truncate)").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Inputs with these numbers and moments.
fn encode(inputs: impl Iterator<Item = (u64, u64)>, keys: u64) -> Result<Vec<(uuid::Uuid, Vec<u8>)>> {
    let input = |(seq, at)| serde_json::to_vec(&Input::new(key_of(seq, keys), seq, at));
    inputs.map(|due| Ok((uuid::Uuid::now_v7(), input(due)?))).collect()
}

/// Handles everything that is in the queue, or comes into it.
pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    let path = &file_of(&spec.store).context("the twin needs a file")?;
    let mut spec = spec.clone();
    spec.batch = if spec.batch == 0 { 200 } else { spec.batch };
    prepare(path, &spec).await?;
    let mut reader = Reader::open(path, spec.batch).await?;
    let writer = Writer::open(path, spec.batch).await?;
    let clock = Clock::start();
    let (jobs, queue) = mpsc::channel::<Job>(spec.ahead.max(1));
    let (done, committed) = mpsc::unbounded_channel();
    let bell = Arc::new(Notify::new());
    let seen = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn(write(writer, queue, done, seen.clone(), bell.clone(), clock));
    let generator = tokio::spawn(feed(Feeder { jobs: jobs.clone(), keys: spec.keys }, spec.clone(), clock, seen));

    let profile = Profile::start();
    let span = Span::start();
    handle(&mut reader, &jobs, committed, &bell, &spec).await?;
    drop(jobs);
    generator.await??;
    let (commits, latencies) = writing.await??;
    let side = Side {
        latencies: if spec.feed.is_live() { latencies.into_micros() } else { Vec::new() },
        ..Side::measured(&span, spec.messages, commits)
    };
    drop(profile);
    audit(path, &spec).await?;
    Ok(side)
}

/// Has the writer put inputs into the queue.
struct Feeder {
    jobs: mpsc::Sender<Job>,
    keys: u64,
}

impl Sender for Feeder {
    async fn send(&self, inputs: &[(u64, u64)]) -> Result<()> {
        Ok(self.jobs.send(Job::Enqueue(encode(inputs.iter().copied(), self.keys)?)).await?)
    }
}

async fn handle(
    reader: &mut Reader,
    jobs: &mpsc::Sender<Job>,
    mut committed: mpsc::UnboundedReceiver<Vec<u64>>,
    bell: &Notify,
    spec: &Spec,
) -> Result<()> {
    let mut ahead = Ahead::new();
    let mut cursor = 0;
    let mut left = spec.messages;
    while left > 0 {
        while let Ok(keys) = committed.try_recv() {
            for key in keys {
                if let Some(entry) = ahead.get_mut(&key) {
                    entry.2 -= 1;
                    if entry.2 == 0 {
                        ahead.remove(&key);
                    }
                }
            }
        }
        let page = reader.page(cursor, spec.batch).await?;
        let Some((last, _)) = page.last() else {
            // a hint that came before this is kept; the time limit is for one that was never sent
            let _ = tokio::time::timeout(Duration::from_millis(100), bell.notified()).await;
            continue;
        };
        cursor = *last;
        left -= page.len() as u64;
        let work = batch(reader, &mut ahead, page, spec).await?;
        jobs.send(Job::Commit(work)).await?;
    }
    Ok(())
}

/// Loads what is not known, and runs the handler on each message.
async fn batch(reader: &mut Reader, ahead: &mut Ahead, page: Vec<(i64, Input)>, spec: &Spec) -> Result<Batch> {
    let mut work = Batch::default();
    if spec.work == Work::Queue {
        for (id, m) in page {
            let output = Output { key: m.key, seq: m.seq, at: m.at, count: 0, note: m.note };
            work.ids.push(id);
            work.outputs.push((uuid::Uuid::now_v7(), serde_json::to_vec(&output)?));
            work.at.push(m.at);
        }
        return Ok(work);
    }
    let mut missing: Vec<u64> = page.iter().map(|(_, input)| input.key).filter(|k| !ahead.contains_key(k)).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        for (key, version, state) in reader.states(&missing).await? {
            ahead.insert(key, (version, serde_json::from_str(&state)?, 0));
        }
    }
    let mut touched: HashMap<u64, (i64, i64)> = HashMap::with_capacity(page.len());
    for (id, input) in page {
        let (version, state, _) = ahead.entry(input.key).or_default();
        let output = state.handle(&input);
        let (_, count) = touched.entry(input.key).or_insert((*version, 0));
        *version += 1;
        *count += 1;
        work.ids.push(id);
        work.outputs.push((uuid::Uuid::now_v7(), serde_json::to_vec(&output)?));
        work.at.push(input.at);
        if spec.own_sql {
            work.own.push((input.key, input.seq));
        }
    }
    for (key, (version, count)) in touched {
        if let Some((_, state, batches)) = ahead.get_mut(&key) {
            *batches += 1;
            work.sagas.push((key, version, count, serde_json::to_string(state)?));
        }
    }
    Ok(work)
}

async fn write(
    mut writer: Writer,
    mut jobs: mpsc::Receiver<Job>,
    done: mpsc::UnboundedSender<Vec<u64>>,
    seen: Arc<AtomicU64>,
    bell: Arc<Notify>,
    clock: Clock,
) -> Result<(u64, Latencies)> {
    let mut latencies = Latencies::default();
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Enqueue(batch) => {
                writer.enqueue(IN, batch).await?;
                bell.notify_one();
            }
            Job::Commit(mut work) => {
                let keys = work.sagas.iter().map(|saga| saga.0).collect();
                let at = std::mem::take(&mut work.at);
                writer.commit(work).await?;
                let now = clock.micros();
                seen.fetch_add(at.len() as u64, Ordering::AcqRel);
                latencies.extend(at.into_iter().map(|at| now.saturating_sub(at)));
                // the reader may have ended: nothing depends on this then
                let _ = done.send(keys);
            }
        }
    }
    Ok((writer.commits, latencies))
}

/// Nothing lost, nothing doubled, nothing changed twice.
async fn audit(path: &Path, spec: &Spec) -> Result<()> {
    let mut connection = connect(path).await?;
    let n = i64::try_from(spec.messages)?;
    let (left,): (i64,) =
        sqlx::query_as("select count(*) from queue where queue = ?").bind(IN).fetch_one(&mut connection).await?;
    let (out, distinct): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct json_extract(cast(body as text), '$.seq')) from queue where queue = ?",
    )
    .bind(OUT)
    .fetch_one(&mut connection)
    .await?;
    anyhow::ensure!(
        left == 0 && out == n && distinct == n,
        "the twin's audit: {n} sent, {left} left, {out} out, {distinct} distinct"
    );
    if spec.work == Work::Queue {
        return Ok(());
    }
    let (count, total, versions): (i64, i64, i64) = sqlx::query_as(
        "select sum(json_extract(state, '$.count')), sum(json_extract(state, '$.total')), sum(version - 1) from saga",
    )
    .fetch_one(&mut connection)
    .await?;
    let (own,): (i64,) = sqlx::query_as("select count(*) from business").fetch_one(&mut connection).await?;
    anyhow::ensure!(
        count == n && versions == n && total == n * (n + 1) / 2,
        "the twin's audit: {n} handled, counted {count} (sum {total}), {versions} versions"
    );
    anyhow::ensure!(own == if spec.own_sql { n } else { 0 }, "the twin's audit: {own} business rows for {n} messages");
    Ok(())
}
