use super::{counts, engine_and_baseline, rate, ratio, sweep, turns, warm_up};
use crate::{
    args::{Queue, Work},
    kafka::is_kafka,
    rabbit::is_rabbit,
    verdict::Verdict,
};
use anyhow::Result;

/// What is asked for through Kafka without a store.
const LEAST_KAFKA: f64 = 100_000.0;
/// What is asked for behind RabbitMQ without a store: of the baseline, and of the baseline's rate.
const LEAST_BASELINE_RATE: f64 = 30_000.0;
const LEAST_RATIO: f64 = 0.8;

pub(super) fn run(args: &Queue) -> Result<Verdict> {
    let common = &args.common;
    let mut verdict = Verdict::start("bench-queue");
    let (engine, baseline) = engine_and_baseline(common, Work::Queue);
    let bare_on = |broker: fn(&str) -> bool| engine.is_bare() && engine.transport.as_deref().is_some_and(broker);
    let (kafka, rabbit) = (bare_on(is_kafka), bare_on(is_rabbit));
    warm_up(common)?;
    let baseline = if args.baseline { Some(sweep(common, &baseline)?) } else { None };
    let turns = turns(common, &engine, baseline.as_ref())?;
    counts(&mut verdict, &turns);
    if let Some(baseline) = &baseline {
        verdict.count("twin_batch", baseline.batch);
        verdict.count("twin_ahead", baseline.ahead);
        if rabbit && !common.no_threshold {
            let (rate, ratio) = (rate(&turns.baseline), ratio(&turns));
            verdict.require(
                rate >= LEAST_BASELINE_RATE,
                format!("the twin does {rate}/s, {LEAST_BASELINE_RATE}/s are asked for"),
            );
            verdict.require(ratio >= LEAST_RATIO, format!("{ratio} of the twin, {LEAST_RATIO} are asked for"));
        }
    }
    if kafka && !common.no_threshold {
        let per_second = rate(&turns.engine);
        verdict.require(per_second >= LEAST_KAFKA, format!("{per_second}/s, {LEAST_KAFKA}/s are asked for"));
    }
    Ok(verdict)
}
