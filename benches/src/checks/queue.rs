use super::{counts, engine_and_twin, rate, sweep, turns, warm_up};
use crate::{
    args::{Common, Work},
    kafka::is_kafka,
    verdict::Verdict,
};
use anyhow::Result;

/// Through Kafka, without a store.
const LEAST_KAFKA: f64 = 100_000.0;

pub(super) fn run(common: &Common) -> Result<Verdict> {
    let mut verdict = Verdict::start("bench-queue");
    let (engine, twin) = engine_and_twin(common, Work::Queue);
    warm_up(common)?;
    let twin = sweep(common, &twin)?;
    let turns = turns(common, &engine, Some(&twin))?;
    counts(&mut verdict, &turns);
    let kafka = common.transport.as_deref().is_some_and(is_kafka) && common.store == "none";
    if kafka && !common.no_threshold {
        let per_second = rate(&turns.engine);
        verdict.require(per_second >= LEAST_KAFKA, format!("{per_second}/s, {LEAST_KAFKA}/s are asked for"));
    }
    Ok(verdict)
}
