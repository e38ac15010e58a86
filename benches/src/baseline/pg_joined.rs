//! Queue and store in one schema.

use super::postgres::{Batch, Database, SCHEMA};
use crate::{
    args::{Feed, Spec, Work},
    latency::{Clock, Latencies, Pace},
    measure::Span,
    payload::{Counter, Input, Output, key_of},
    postgres::Meter,
    profile::Profile,
    report::Side,
};
use anyhow::Result;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What the workers share.
struct Shop {
    spec: Spec,
    clock: Clock,
    through: AtomicU64,
    /// One for each worker.
    bells: Vec<Notify>,
    ended: Notify,
}

/// The worker that a key belongs to: no two ever write one saga, so they cannot wait for each other.
fn worker_of(key: u64, workers: usize) -> usize {
    usize::try_from(key).unwrap_or(0) % workers
}

async fn prepare(spec: &Spec) -> Result<Database> {
    let mut database = Database::open(&spec.store).await?;
    database.script(SCHEMA).await?;
    let all: Vec<u64> = (0..spec.keys).collect();
    for chunk in all.chunks(500) {
        let mut states = Vec::with_capacity(chunk.len());
        for key in chunk {
            let mut state = Counter::default();
            // a state of full size, that has not counted anything yet
            state.handle(&Input::new(*key, 0, 0));
            state.count = 0;
            states.push(serde_json::to_vec(&state)?);
        }
        database.create(chunk.iter().map(|key| key.cast_signed()).collect(), states).await?;
    }
    database.script("vacuum analyze queue, saga").await?;
    // before the messages come: in a live system most rows are gone before the next checkpoint
    database.script("checkpoint").await?;
    let all: Vec<(u64, u64)> = (1..=if spec.feed.is_live() { 0 } else { spec.messages }).map(|seq| (seq, 0)).collect();
    for chunk in all.chunks(500) {
        enqueue(&mut database, spec, chunk).await?;
    }
    Ok(database)
}

/// Adds inputs with these numbers and moments, each to its worker's queue.
async fn enqueue(database: &mut Database, spec: &Spec, inputs: &[(u64, u64)]) -> Result<()> {
    let (mut queues, mut bodies) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
    for (seq, at) in inputs {
        let key = key_of(*seq, spec.keys);
        queues.push(1 + i64::try_from(worker_of(key, spec.ahead))?);
        bodies.push(serde_json::to_vec(&Input::new(key, *seq, *at))?);
    }
    database.enqueue(queues, bodies).await
}

/// Handles everything that is in the queues, or comes into them.
pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    let mut spec = spec.clone();
    spec.batch = if spec.batch == 0 { 200 } else { spec.batch };
    spec.ahead = spec.ahead.max(1);
    let generator = prepare(&spec).await?;
    let mut databases = Vec::new();
    for _ in 0..spec.ahead {
        databases.push(Database::open(&spec.store).await?);
    }
    let bells = (0..spec.ahead).map(|_| Notify::new()).collect();
    let shop = Arc::new(Shop {
        spec: spec.clone(),
        clock: Clock::start(),
        through: AtomicU64::new(0),
        bells,
        ended: Notify::new(),
    });
    let meter = Meter::start(&spec.store).await?;
    let profile = Profile::start();
    let span = Span::start();
    let workers: Vec<_> = databases
        .into_iter()
        .enumerate()
        .map(|(at, database)| tokio::spawn(work(shop.clone(), at, database)))
        .collect();
    let generator = tokio::spawn(feed(shop.clone(), generator));
    let (mut commits, mut latencies) = (0, Latencies::default());
    let mut seconds = 0.0;
    for worker in workers {
        let (count, micros) = worker.await??;
        seconds = span.seconds();
        commits += count;
        latencies.append(micros);
    }
    let mut side = Side {
        seconds,
        latencies: if spec.feed.is_live() { latencies.into_micros() } else { Vec::new() },
        ..Side::measured(&span, spec.messages, commits)
    };
    drop(profile);
    if let Some(meter) = meter {
        meter.stop(spec.messages, &mut side.more).await?;
    }
    audit(generator.await??, &spec).await?;
    Ok(side)
}

/// Sends while the others work.
async fn feed(shop: Arc<Shop>, mut database: Database) -> Result<Database> {
    let spec = &shop.spec;
    match spec.feed {
        Feed::Preloaded => {}
        Feed::Rate(rate) => {
            let mut pace = Pace::new(shop.clock, rate, spec.messages);
            loop {
                let inputs = pace.due().await;
                if inputs.is_empty() {
                    break;
                }
                enqueue(&mut database, spec, &inputs).await?;
                shop.bells.iter().for_each(Notify::notify_one);
            }
        }
        Feed::Single => {
            for seq in 1..=spec.messages {
                tokio::time::sleep(Duration::from_millis(10)).await;
                enqueue(&mut database, spec, &[(seq, shop.clock.micros())]).await?;
                shop.bells.iter().for_each(Notify::notify_one);
                while shop.through.load(Ordering::Acquire) < seq {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        }
    }
    Ok(database)
}

/// One worker, until all messages are through.
async fn work(shop: Arc<Shop>, at: usize, mut database: Database) -> Result<(u64, Latencies)> {
    let (mut cursor, mut commits, mut latencies) = (0, 0, Latencies::default());
    while shop.through.load(Ordering::Acquire) < shop.spec.messages {
        let page = database.page(1 + i64::try_from(at)?, cursor, shop.spec.batch).await?;
        let Some((last, _)) = page.last() else {
            tokio::select! {
                () = shop.bells[at].notified() => {}
                () = shop.ended.notified() => {}
                // a hint that came before this is kept; the time limit is for one that was never sent
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            continue;
        };
        cursor = *last;
        let due: Vec<u64> = page.iter().map(|(_, input)| input.at).collect();
        let batch = handle(&mut database, page, &shop.spec).await?;
        database.commit(batch).await?;
        let now = shop.clock.micros();
        commits += 1;
        latencies.extend(due.iter().map(|at| now.saturating_sub(*at)));
        let n = due.len() as u64;
        if shop.through.fetch_add(n, Ordering::AcqRel) + n >= shop.spec.messages {
            shop.ended.notify_waiters();
        }
    }
    Ok((commits, latencies))
}

/// Loads the states, and runs the handler on each message.
async fn handle(database: &mut Database, page: Vec<(i64, Input)>, spec: &Spec) -> Result<Batch> {
    let mut work = Batch::default();
    let mut states: HashMap<u64, (i64, i64, Counter)> = HashMap::with_capacity(page.len());
    if spec.work != Work::Queue {
        let mut keys: Vec<i64> = page.iter().map(|(_, input)| input.key.cast_signed()).collect();
        keys.sort_unstable();
        keys.dedup();
        for (key, version, state) in database.states(&keys).await? {
            states.insert(key.cast_unsigned(), (version, 0, state));
        }
    }
    for (id, m) in page {
        let output = if spec.work == Work::Queue {
            Output { key: m.key, seq: m.seq, at: m.at, count: 0, note: m.note }
        } else {
            let (_, count, state) = states.entry(m.key).or_default();
            *count += 1;
            if spec.own_sql {
                work.own.push((m.key.cast_signed(), m.seq.cast_signed()));
            }
            state.handle(&m)
        };
        work.ids.push(id);
        work.message_ids.push(uuid::Uuid::now_v7());
        work.outputs.push(serde_json::to_vec(&output)?);
    }
    for (key, (version, count, state)) in states {
        work.keys.push(key.cast_signed());
        work.versions.push(version);
        work.counts.push(count);
        work.states.push(serde_json::to_vec(&state)?);
    }
    Ok(work)
}

/// Nothing lost, nothing doubled, nothing changed twice.
async fn audit(mut database: Database, spec: &Spec) -> Result<()> {
    let n = i64::try_from(spec.messages)?;
    let [left, out, distinct, count, total, versions, own] = database.audit().await?;
    anyhow::ensure!(
        left == 0 && out == n && distinct == n,
        "the twin's audit: {n} sent, {left} left, {out} out, {distinct} distinct"
    );
    if spec.work == Work::Queue {
        return Ok(());
    }
    anyhow::ensure!(
        count == n && versions == n && total == n * (n + 1) / 2,
        "the twin's audit: {n} handled, counted {count} (sum {total}), {versions} versions"
    );
    anyhow::ensure!(own == if spec.own_sql { n } else { 0 }, "the twin's audit: {own} business rows for {n} messages");
    Ok(())
}
