use super::{engine_and_baseline, warm_up};
use crate::{
    args::{Feed, Rest, Spec, Work},
    child,
    measure::{median, round},
    report::Side,
    verdict::Verdict,
};
use anyhow::Result;

/// How much longer than the baseline's a message may take.
const MOST_MS: f64 = 2.0;

pub(super) fn run(args: &Rest) -> Result<Verdict> {
    let common = &args.common;
    let mut verdict = Verdict::start("bench-rest");
    let (engine, baseline) = engine_and_baseline(common, Work::Saga);
    warm_up(common)?;
    let single = |spec: Spec| Spec { feed: Feed::Single, messages: args.samples, keys: spec.keys.min(100), ..spec };
    let (engine, baseline) = (single(engine), single(baseline));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..common.runs.max(1) {
        for (spec, sides) in [(&baseline, &mut theirs), (&engine, &mut ours)] {
            let side = child::run(spec)?;
            common.say(format_args!(
                "  {:?}: p50 {} ms, p99 {} ms, {:.0} us CPU each",
                spec.who,
                side.latency(0.5),
                side.latency(0.99),
                side.cpu_us
            ));
            sides.push(side);
        }
    }
    let of = |sides: &[Side], q: f64| median(&sides.iter().map(|side| side.latency(q)).collect::<Vec<_>>());
    verdict.count("p50_ms", of(&ours, 0.5));
    verdict.count("p99_ms", of(&ours, 0.99));
    verdict.count("twin_p50_ms", of(&theirs, 0.5));
    verdict.count("twin_p99_ms", of(&theirs, 0.99));
    let more = round(of(&ours, 0.5) - of(&theirs, 0.5), 100.0);
    verdict.count("more_ms", more);
    verdict.count("samples", args.samples);
    if !common.no_threshold {
        verdict.require(more <= MOST_MS, format!("{more} ms more than the twin, {MOST_MS} are allowed"));
    }
    Ok(verdict)
}
