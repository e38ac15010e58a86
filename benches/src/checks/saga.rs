use super::{counts, cpu, engine_and_baseline, rate, ratio, say, sweep, turns, warm_up};
use crate::{
    args::{Feed, Saga, Spec, Work},
    child,
    kafka::is_kafka,
    postgres::is_postgres,
    rabbit::is_rabbit,
    report::Side,
    verdict::Verdict,
};
use anyhow::Result;

/// What is asked for, on a quiet machine with two cores.
struct Bars {
    least: f64,
    least_own_sql: f64,
    least_ratio: f64,
    least_baseline: f64,
    /// At so many messages a second, with the generator on.
    most_p99_ms: Option<(f64, f64)>,
}

const SQLITE: Bars =
    Bars { least: 12_000.0, least_own_sql: 4_000.0, least_ratio: 0.65, least_baseline: 22_000.0, most_p99_ms: None };
const POSTGRES: Bars = Bars {
    least: 30_000.0,
    least_own_sql: 6_000.0,
    least_ratio: 0.5,
    least_baseline: 60_000.0,
    most_p99_ms: Some((15_000.0, 25.0)),
};

/// On Kafka, with the state in PostgreSQL.
const KAFKA: Bars = Bars {
    least: 30_000.0,
    // not asked for
    least_own_sql: 0.0,
    least_ratio: 0.5,
    least_baseline: 50_000.0,
    most_p99_ms: Some((10_000.0, 50.0)),
};

/// Behind RabbitMQ, with the state in PostgreSQL.
const RABBIT: Bars = Bars {
    least: 15_000.0,
    // not asked for
    least_own_sql: 0.0,
    least_ratio: 0.6,
    least_baseline: 24_000.0,
    most_p99_ms: Some((6_000.0, 50.0)),
};

pub(super) fn run(args: &Saga) -> Result<Verdict> {
    let common = &args.common;
    let broker = |is: fn(&str) -> bool| common.transport.as_deref().is_some_and(is);
    let (kafka, rabbit) = (broker(is_kafka), broker(is_rabbit));
    let bars = match () {
        () if kafka => &KAFKA,
        () if rabbit => &RABBIT,
        () if is_postgres(&common.store) => &POSTGRES,
        () => &SQLITE,
    };
    let mut verdict = Verdict::start("bench-saga");
    let (engine, baseline) = engine_and_baseline(common, Work::Saga);
    let set = |spec: Spec| Spec { own_sql: args.own_sql, keys: if args.hot { 1 } else { spec.keys }, ..spec };
    let (engine, baseline) = (set(engine), set(baseline));
    warm_up(common)?;
    let baseline = if args.baseline { Some(sweep(common, &baseline)?) } else { None };
    let turns = turns(common, &engine, baseline.as_ref())?;
    counts(&mut verdict, &turns);
    if let Some(baseline) = &baseline {
        verdict.count("twin_batch", baseline.batch);
        verdict.count("twin_ahead", baseline.ahead);
    }
    if args.naive {
        let naive = Spec { batch: 1, messages: (engine.messages / 10).max(1), ..engine.clone() };
        let side = child::run(&naive)?;
        say(common, "naive ", &side);
        verdict.count("naive_per_s", side.per_second().round());
        verdict.count("naive_cpu_us_per_message", cpu(std::slice::from_ref(&side)));
    }
    if let Some(fraction) = args.load {
        let at = if fraction < 2.0 { rate(&turns.engine) * fraction } else { fraction };
        verdict.count("load_per_s", at.round());
        let live = |spec: &Spec| {
            // ten seconds of it
            let messages = ((at * 10.0) as u64).clamp(100, spec.messages);
            child::run(&Spec { feed: Feed::Rate(at), messages, ..spec.clone() })
        };
        let side = live(&engine)?;
        latencies(&mut verdict, "", &side);
        if let Some((from, most)) = bars.most_p99_ms.filter(|(from, _)| at >= *from && !common.no_threshold) {
            let p99 = side.latency(0.99);
            verdict.require(p99 < most, format!("p99 {p99} ms at {at}/s, under {most} ms from {from}/s are asked for"));
        }
        if let Some(baseline) = &baseline {
            latencies(&mut verdict, "twin_", &live(baseline)?);
        }
    }
    if common.no_threshold {
        return Ok(verdict);
    }
    let per_second = rate(&turns.engine);
    let least = if args.own_sql { bars.least_own_sql } else { bars.least };
    verdict.require(per_second >= least, format!("{per_second}/s, {least}/s are asked for"));
    if args.baseline && !args.own_sql && !args.hot && (common.is_joined() || kafka || rabbit) {
        let (baseline, least) = (rate(&turns.baseline), bars.least_baseline);
        verdict.require(baseline >= least, format!("the twin does {baseline}/s: it is no yardstick under {least}/s"));
        let (ratio, least) = (ratio(&turns), bars.least_ratio);
        verdict.require(ratio >= least, format!("{ratio} of the twin, {least} are asked for"));
    }
    Ok(verdict)
}

fn latencies(verdict: &mut Verdict, whose: &str, side: &Side) {
    verdict.count(&format!("{whose}p50_ms"), side.latency(0.5));
    verdict.count(&format!("{whose}p99_ms"), side.latency(0.99));
    verdict.count(&format!("{whose}load_cpu_us_per_message"), cpu(std::slice::from_ref(side)));
}
