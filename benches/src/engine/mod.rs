//! The engine as a user has it: an endpoint, a saga, nothing tuned.

mod audit;
mod audit_postgres;
mod fixture;
mod handlers;
mod inbox;
mod output_reader;
mod timers;

use crate::{
    args::{Spec, Work},
    feed::{Sender, feed, preload},
    kafka::{self, is_kafka},
    latency::Clock,
    measure::{Span, rss_mb},
    payload::{Input, key_of},
    postgres::{self, Meter, is_postgres},
    profile::Profile,
    report::Side,
};
use anyhow::{Result, bail};
use fixture::Fixture;
use sagabus::{Bus, RunningEndpoint};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// No progress for so long: something is wrong.
const STUCK: Duration = Duration::from_secs(30);

/// How often progress is looked at: each look wakes a thread, which costs what is measured.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the spec in this process.
pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    if spec.work == Work::Timers {
        return timers::run(spec).await;
    }
    if spec.work == Work::Queue && spec.is_bare() && spec.transport.as_deref().is_some_and(is_kafka) {
        return kafka::port::run(spec).await;
    }
    let fixture = Fixture::open(spec).await?;
    let warm = warm_up(&fixture, spec).await?;
    inbox::fill(spec).await?;
    if is_postgres(&spec.store) {
        // before the messages come: in a live system most rows are gone before the next checkpoint
        postgres::settle(&spec.store).await?;
    }
    let endpoint = fixture.endpoint(spec).build().await?;
    let bus = endpoint.bus();
    let feeder = Feeder { bus, keys: spec.keys };
    if !spec.feed.is_live() {
        preload(&feeder, spec.messages).await?;
    }
    let first = fixture.tail_start().await?;
    let clock = Clock::start();
    let seen = Arc::new(AtomicU64::new(0));
    let output_reader =
        spec.feed.is_live().then(|| output_reader::read_outputs(fixture.clone(), first, spec, clock, seen.clone()));
    let meter = Meter::start(&spec.store).await?;
    let profile = Profile::start();
    let (running, span) = start(endpoint, spec).await?;
    let generator = tokio::spawn(feed(feeder, spec.clone(), clock, seen));
    let mut more = std::collections::BTreeMap::new();
    wait(&running, spec, &fixture, &mut more).await?;
    let mut side = Side::measured(&span, spec.messages, running.stats().commits);
    side.more.append(&mut more);
    drop(profile);
    if let Some(meter) = meter {
        meter.stop(spec.messages, &mut side.more).await?;
    }
    generator.await??;
    if let Some(output_reader) = output_reader {
        side.latencies = output_reader.await??.into_micros();
    }
    running.stop().await?;
    audit::audit(spec, warm).await?;
    Ok(side)
}

/// One message for each saga, so that all exist; how many that were.
async fn warm_up(fixture: &Fixture, spec: &Spec) -> Result<u64> {
    fixture.prepare(spec).await?;
    if spec.work != Work::Saga {
        return Ok(0);
    }
    let endpoint = fixture.endpoint(spec).build().await?;
    let keys: Vec<u64> = (0..spec.keys).collect();
    for chunk in keys.chunks(500) {
        // numbers that the run does not use
        let inputs = chunk.iter().map(|key| Input::new(*key, spec.messages + 1 + key, 0));
        all(endpoint.bus().send_all(inputs).await?)?;
    }
    let running = endpoint.start().await?;
    let count = async || running.stats().handled;
    until(spec.keys, count, &running).await?;
    running.stop().await?;
    Ok(spec.keys)
}

fn all<T>(results: Vec<sagabus::ports::Result<T>>) -> Result<()> {
    for result in results {
        result?;
    }
    Ok(())
}

/// Starts it. With a full queue, the time begins with the first message that is received.
async fn start(endpoint: sagabus::Endpoint, spec: &Spec) -> Result<(RunningEndpoint, Span)> {
    let running = endpoint.start().await?;
    let mut span = Span::start();
    while !spec.feed.is_live() && running.stats().received == 0 {
        span = Span::start();
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok((running, span))
}

/// Until the last output is durable where it is to go.
async fn wait(
    running: &RunningEndpoint,
    spec: &Spec,
    fixture: &Fixture,
    more: &mut std::collections::BTreeMap<String, f64>,
) -> Result<()> {
    let mut next = spec.messages / 10;
    let split = fixture.is_split();
    let count = async || {
        let stats = running.stats();
        let done = if split { stats.handled.min(stats.dispatched) } else { stats.handled };
        if done >= next && next > 0 {
            more.insert(format!("rss_mb_at_{:02}", next * 100 / spec.messages), rss_mb());
            next += spec.messages / 10;
        }
        done
    };
    until(spec.messages, count, running).await
}

async fn until(target: u64, mut count: impl AsyncFnMut() -> u64, running: &RunningEndpoint) -> Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = count().await;
        if now >= target {
            return Ok(());
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STUCK {
            bail!("{now} of {target} after {STUCK:?} without progress: {:?}", running.stats());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends as a user would: one by itself, or many at once.
struct Feeder {
    bus: Bus,
    keys: u64,
}

impl Sender for Feeder {
    async fn send(&self, inputs: &[(u64, u64)]) -> Result<()> {
        let input = |(seq, at): &(u64, u64)| Input::new(key_of(*seq, self.keys), *seq, *at);
        if let [single] = inputs {
            self.bus.send(input(single)).await?;
            return Ok(());
        }
        all(self.bus.send_all(inputs.iter().map(input).collect::<Vec<_>>()).await?)
    }
}
