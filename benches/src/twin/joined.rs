//! Queue and store in one file.

use super::{IN, OUT, Reader, Work, Writer, connect, create};
use crate::{
    latency::{Clock, Latencies, Pace},
    measure::{Span, peak_mb, rss_mb},
    payload::{Counter, Input, key_of},
    report::Side,
};
use anyhow::Result;
use sqlx::Connection as _;
use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// How the twin is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Most messages in one commit.
    pub(crate) batch: usize,
    /// Commits that may wait for the writer.
    pub(crate) ahead: usize,
    /// Rows come packed into one.
    pub(crate) packed: bool,
    /// A row of its own for each message.
    pub(crate) own_sql: bool,
}

/// What the writer gets.
enum Job {
    Commit(Work),
    Enqueue(Vec<(uuid::Uuid, Vec<u8>)>),
}

/// States that are computed and perhaps not yet committed: version, state, in how many batches.
type Ahead = HashMap<u64, (i64, Counter, usize)>;

/// Creates the file with all sagas in it, and fills the queue.
pub(crate) async fn prepare(path: &Path, messages: u64, keys: u64) -> Result<()> {
    create(path).await?;
    let mut writer = Writer::open(path, 500).await?;
    let all: Vec<u64> = (0..keys).collect();
    for chunk in all.chunks(500) {
        let sagas = chunk.iter().map(|key| {
            let mut state = Counter::default();
            // a state of full size, that has not counted anything yet
            state.handle(&Input::new(*key, 0, 0));
            state.count = 0;
            Ok((*key, 0, 1, serde_json::to_string(&state)?))
        });
        let work = Work { sagas: sagas.collect::<Result<Vec<_>>>()?, ..Work::default() };
        writer.commit(work).await?;
    }
    let all: Vec<u64> = (1..=messages).collect();
    for chunk in all.chunks(500) {
        writer.enqueue(IN, encode(chunk.iter().map(|seq| (*seq, 0)), keys)?).await?;
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

/// Handles everything that is in the queue; with a `load`, what the generator puts there meanwhile, at so many a second.
pub(crate) async fn run(path: &Path, messages: u64, keys: u64, settings: Settings, load: Option<f64>) -> Result<Side> {
    prepare(path, if load.is_some() { 0 } else { messages }, keys).await?;
    let mut reader = Reader::open(path, settings.batch, settings.packed).await?;
    let writer = Writer::open(path, settings.batch).await?;
    let clock = Clock::start();
    let (jobs, queue) = mpsc::channel::<Job>(settings.ahead);
    let (done, committed) = mpsc::unbounded_channel();
    let bell = Arc::new(Notify::new());
    let writing = tokio::spawn(write(writer, queue, done, bell.clone(), clock, load.is_some()));
    let generator = load.map(|rate| {
        let jobs = jobs.clone();
        tokio::spawn(async move {
            let mut pace = Pace::new(clock, rate, messages);
            loop {
                let inputs = pace.due().await;
                if inputs.is_empty() {
                    return Ok::<_, anyhow::Error>(());
                }
                jobs.send(Job::Enqueue(encode(inputs.into_iter(), keys)?)).await?;
            }
        })
    });

    let span = Span::start();
    handle(&mut reader, &jobs, committed, &bell, messages, settings).await?;
    drop(jobs);
    if let Some(generator) = generator {
        generator.await??;
    }
    let (commits, latencies) = writing.await??;
    let side = Side {
        messages,
        seconds: span.seconds(),
        cpu_us: span.cpu_us_per(messages),
        rss_mb: rss_mb(),
        peak_mb: peak_mb(),
        commits,
        latencies: latencies.into_micros(),
        ..Side::default()
    };
    audit(path, messages, settings.own_sql).await?;
    Ok(side)
}

async fn handle(
    reader: &mut Reader,
    jobs: &mpsc::Sender<Job>,
    mut committed: mpsc::UnboundedReceiver<Vec<u64>>,
    bell: &Notify,
    messages: u64,
    settings: Settings,
) -> Result<()> {
    let mut ahead = Ahead::new();
    let mut cursor = 0;
    let mut left = messages;
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
        let page = reader.page(cursor, settings.batch).await?;
        let Some((last, _)) = page.last() else {
            // a hint that came before this is kept; the time limit is for one that was never sent
            let _ = tokio::time::timeout(Duration::from_millis(100), bell.notified()).await;
            continue;
        };
        cursor = *last;
        left -= page.len() as u64;
        let work = batch(reader, &mut ahead, page, settings).await?;
        jobs.send(Job::Commit(work)).await?;
    }
    Ok(())
}

/// Loads what is not known, and runs the handler on each message.
async fn batch(reader: &mut Reader, ahead: &mut Ahead, page: Vec<(i64, Input)>, settings: Settings) -> Result<Work> {
    let mut missing: Vec<u64> = page.iter().map(|(_, input)| input.key).filter(|k| !ahead.contains_key(k)).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        for (key, version, state) in reader.states(&missing).await? {
            ahead.insert(key, (version, serde_json::from_str(&state)?, 0));
        }
    }
    let mut work = Work::default();
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
        if settings.own_sql {
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
    bell: Arc<Notify>,
    clock: Clock,
    timed: bool,
) -> Result<(u64, Latencies)> {
    let mut latencies = Latencies::default();
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Enqueue(batch) => {
                writer.enqueue(IN, batch).await?;
                bell.notify_one();
            }
            Job::Commit(work) => {
                let keys = work.sagas.iter().map(|saga| saga.0).collect();
                let at = if timed { work.at.clone() } else { Vec::new() };
                writer.commit(work).await?;
                let now = clock.micros();
                latencies.extend(at.into_iter().map(|at| now.saturating_sub(at)));
                // the reader may have ended: nothing depends on this then
                let _ = done.send(keys);
            }
        }
    }
    Ok((writer.commits, latencies))
}

/// Nothing lost, nothing doubled, nothing changed twice.
async fn audit(path: &Path, messages: u64, own_sql: bool) -> Result<()> {
    let mut connection = connect(path).await?;
    let n = i64::try_from(messages)?;
    let (left,): (i64,) =
        sqlx::query_as("select count(*) from queue where queue = ?").bind(IN).fetch_one(&mut connection).await?;
    let (out, distinct): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct json_extract(cast(body as text), '$.seq')) from queue where queue = ?",
    )
    .bind(OUT)
    .fetch_one(&mut connection)
    .await?;
    let (count, total, versions): (i64, i64, i64) = sqlx::query_as(
        "select sum(json_extract(state, '$.count')), sum(json_extract(state, '$.total')), sum(version - 1) from saga",
    )
    .fetch_one(&mut connection)
    .await?;
    let (own,): (i64,) = sqlx::query_as("select count(*) from business").fetch_one(&mut connection).await?;
    anyhow::ensure!(
        left == 0 && [out, distinct, count, versions] == [n; 4] && total == n * (n + 1) / 2,
        "the twin's audit: {n} sent, {left} left, {out} out, {distinct} distinct, counted {count} (sum {total}), \
         {versions} versions"
    );
    anyhow::ensure!(own == if own_sql { n } else { 0 }, "the twin's audit: {own} business rows for {n} messages");
    Ok(())
}
