//! The commands: each runs its sides in turns, and judges.

mod fsync;
mod inbox;
mod memory;
mod queue;
mod rest;
mod saga;
mod timers;

use crate::{
    args::{Common, Spec, What, Who, Work},
    child,
    kafka::is_kafka,
    measure::{median, round},
    postgres::is_postgres,
    rabbit::is_rabbit,
    report::Side,
    verdict::Verdict,
};
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn run(what: What) -> ExitCode {
    let (check, judged) = match &what {
        What::Saga(args) => ("bench-saga", saga::run(args)),
        What::Queue(args) => ("bench-queue", queue::run(args)),
        What::Rest(args) => ("bench-rest", rest::run(args)),
        What::Timers(args) => ("bench-timers", timers::run(args)),
        What::Memory(args) => ("bench-memory", memory::run(args)),
        What::Inbox(args) => ("bench-inbox", inbox::run(args)),
        What::Fsync(args) => ("bench-fsync", fsync::run(args)),
        What::Side { .. } => return ExitCode::from(64),
    };
    match judged {
        Ok(verdict) => verdict.finish(),
        Err(error) => {
            let mut verdict = Verdict::start(check);
            verdict.count("errors", 1);
            verdict.count("error", format!("{error:#}"));
            verdict.require(false, format!("{error:#}"));
            verdict.finish()
        }
    }
}

/// Batch and window sizes of the baseline that are tried.
const SWEEP: [(usize, usize); 6] = [(100, 1), (200, 1), (400, 1), (200, 2), (400, 2), (400, 4)];
/// On PostgreSQL: batches, and workers with a connection each.
const PG_SWEEP: [(usize, usize); 6] = [(100, 2), (200, 2), (400, 2), (200, 3), (400, 3), (400, 1)];
/// Behind a broker without a store: batches, and how many are under way at once.
const BARE_SWEEP: [(usize, usize); 6] = [(100, 4), (200, 4), (400, 4), (100, 8), (200, 8), (400, 2)];

/// On Kafka: batches, and workers with a connection and a share of the partitions each.
const KAFKA_SWEEP: [(usize, usize); 6] = [(200, 2), (500, 2), (1000, 2), (200, 3), (500, 3), (500, 4)];
/// How many messages warm a broker up: its first ones cost ten times as much.
const WARM: u64 = 100_000;

/// The baseline's best setting for this work: each tried once, on fewer messages.
fn sweep(common: &Common, spec: &Spec) -> Result<Spec> {
    let mut best: Option<(f64, Spec)> = None;
    let settings = match &common.transport {
        Some(url) if is_kafka(url) => KAFKA_SWEEP,
        Some(url) if is_rabbit(url) && spec.is_bare() => BARE_SWEEP,
        _ if is_postgres(&common.store) => PG_SWEEP,
        _ => SWEEP,
    };
    for (batch, ahead) in settings {
        let spec = Spec { batch, ahead, messages: (spec.messages / 2).max(1), ..spec.clone() };
        let rate = child::run(&spec)?.per_second();
        common.say(format_args!("  twin with batches of {batch}, {ahead} ahead: {rate:.0}/s"));
        if best.as_ref().is_none_or(|(other, _)| rate > *other) {
            best = Some((rate, spec));
        }
    }
    let (batch, ahead) = best.map_or((200, 1), |(_, spec)| (spec.batch, spec.ahead));
    Ok(Spec { batch, ahead, ..spec.clone() })
}

/// Has a broker on a virtual machine compile what it runs, before anything is measured.
fn warm_up(common: &Common) -> Result<()> {
    if !common.transport.as_deref().is_some_and(is_kafka) {
        return Ok(());
    }
    let spec = Spec { store: "none".into(), batch: 500, messages: WARM, ..common.spec(Who::Baseline, Work::Queue) };
    let rate = child::run(&spec)?.per_second();
    common.say(format_args!("  the broker, warming up: {rate:.0}/s without a store"));
    Ok(())
}

/// Engine and baseline in turns.
struct Turns {
    engine: Vec<Side>,
    baseline: Vec<Side>,
}

fn turns(common: &Common, engine: &Spec, baseline: Option<&Spec>) -> Result<Turns> {
    let mut turns = Turns { engine: Vec::new(), baseline: Vec::new() };
    for _ in 0..common.runs.max(1) {
        if let Some(baseline) = baseline {
            let side = child::run(baseline)?;
            say(common, "twin  ", &side);
            turns.baseline.push(side);
        }
        let side = child::run(engine)?;
        say(common, "engine", &side);
        turns.engine.push(side);
    }
    Ok(turns)
}

fn say(common: &Common, who: &str, side: &Side) {
    let per_commit = side.messages as f64 / side.commits.max(1) as f64;
    let broker = side.more.get("broker_cpu_us_per_message").map(|cpu| format!("  broker {cpu:.1} us CPU each"));
    common.say(format_args!(
        "  {who} {:>7.0}/s  {:>6.1} us CPU each  {per_commit:>5.0} per commit  {:>5.0} MB{}{}",
        side.per_second(),
        side.cpu_us,
        side.peak_mb,
        match (side.more.get("server_cpu_us_per_message"), side.more.get("wal_bytes_per_message")) {
            (Some(cpu), Some(wal)) => format!("  server {cpu:.1} us CPU, {wal} bytes of WAL each"),
            _ => String::new(),
        },
        broker.unwrap_or_default(),
    ));
}

fn rate(sides: &[Side]) -> f64 {
    median(&sides.iter().map(Side::per_second).collect::<Vec<_>>()).round()
}

fn cpu(sides: &[Side]) -> f64 {
    round(median(&sides.iter().map(|side| side.cpu_us).collect::<Vec<_>>()), 10.0)
}

fn peak(sides: &[Side]) -> f64 {
    median(&sides.iter().map(|side| side.peak_mb).collect::<Vec<_>>()).round()
}

/// The counts that most have.
fn counts(verdict: &mut Verdict, turns: &Turns) {
    verdict.count("messages_per_s", rate(&turns.engine));
    verdict.count("cpu_us_per_message", cpu(&turns.engine));
    verdict.count("rss_mb", peak(&turns.engine));
    if !turns.baseline.is_empty() {
        verdict.count("twin_per_s", rate(&turns.baseline));
        verdict.count("twin_cpu_us_per_message", cpu(&turns.baseline));
        verdict.count("twin_rss_mb", peak(&turns.baseline));
        verdict.count("ratio", ratio(turns));
    }
    for (whose, sides) in [("", &turns.engine), ("twin_", &turns.baseline)] {
        for name in ["server_cpu_us_per_message", "wal_bytes_per_message", "broker_cpu_us_per_message"] {
            let all: Vec<f64> = sides.iter().filter_map(|side| side.more.get(name).copied()).collect();
            if !all.is_empty() {
                verdict.count(&format!("{whose}{name}"), round(median(&all), 10.0));
            }
        }
    }
}

/// The median of the ratios of neighbours: what else the machine does disturbs both alike.
fn ratio(turns: &Turns) -> f64 {
    let pairs = turns.engine.iter().zip(&turns.baseline);
    round(
        median(&pairs.map(|(engine, baseline)| engine.per_second() / baseline.per_second()).collect::<Vec<_>>()),
        1000.0,
    )
}

fn engine_and_baseline(common: &Common, work: Work) -> (Spec, Spec) {
    if cfg!(not(feature = "jemalloc")) {
        common.say("  built without `--features jemalloc`: both sides allocate with mimalloc, which is slower here");
    }
    (common.spec(Who::Engine, work), Spec { batch: 0, ..common.spec(Who::Baseline, work) })
}
