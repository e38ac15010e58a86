use super::{counts, cpu, engine_and_twin, rate, ratio, say, sweep, turns};
use crate::{
    args::{Feed, Saga, Spec, Work},
    child,
    report::Side,
    verdict::Verdict,
};
use anyhow::Result;

/// What issue 3 asks for, on a quiet machine with two cores.
const LEAST: f64 = 12_000.0;
const LEAST_OWN_SQL: f64 = 4_000.0;
const LEAST_RATIO: f64 = 0.65;
const LEAST_TWIN: f64 = 22_000.0;

pub(super) fn run(args: &Saga) -> Result<Verdict> {
    let common = &args.common;
    let mut verdict = Verdict::start("bench-saga");
    let (engine, twin) = engine_and_twin(common, Work::Saga);
    let set = |spec: Spec| Spec { own_sql: args.own_sql, keys: if args.hot { 1 } else { spec.keys }, ..spec };
    let (engine, twin) = (set(engine), set(twin));
    let twin = if args.twin { Some(sweep(common, &twin)?) } else { None };
    let turns = turns(common, &engine, twin.as_ref())?;
    counts(&mut verdict, &turns);
    if let Some(twin) = &twin {
        verdict.count("twin_batch", twin.batch);
        verdict.count("twin_ahead", twin.ahead);
    }
    if args.naive {
        let naive = Spec { batch: 1, messages: (engine.messages / 10).max(1), ..engine.clone() };
        let side = child::run(&naive)?;
        say(common, "naive ", &side);
        verdict.count("naive_per_s", side.per_second().round());
        verdict.count("naive_cpu_us_per_message", cpu(std::slice::from_ref(&side)));
    }
    if let Some(fraction) = args.load {
        let at = rate(&turns.engine) * fraction;
        verdict.count("load_per_s", at.round());
        let live = |spec: &Spec| {
            // ten seconds of it
            let messages = ((at * 10.0) as u64).clamp(100, spec.messages);
            child::run(&Spec { feed: Feed::Rate(at), messages, ..spec.clone() })
        };
        let side = live(&engine)?;
        latencies(&mut verdict, "", &side);
        if let Some(twin) = &twin {
            latencies(&mut verdict, "twin_", &live(twin)?);
        }
    }
    if common.no_threshold {
        return Ok(verdict);
    }
    let per_second = rate(&turns.engine);
    let least = if args.own_sql { LEAST_OWN_SQL } else { LEAST };
    verdict.require(per_second >= least, format!("{per_second}/s, {least}/s are asked for"));
    if args.twin && !args.own_sql && !args.hot && common.transport.is_none() {
        let twin = rate(&turns.twin);
        verdict.require(twin >= LEAST_TWIN, format!("the twin does {twin}/s: it is no yardstick under {LEAST_TWIN}/s"));
        let ratio = ratio(&turns);
        verdict.require(ratio >= LEAST_RATIO, format!("{ratio} of the twin, {LEAST_RATIO} are asked for"));
    }
    Ok(verdict)
}

fn latencies(verdict: &mut Verdict, whose: &str, side: &Side) {
    verdict.count(&format!("{whose}p50_ms"), side.latency(0.5));
    verdict.count(&format!("{whose}p99_ms"), side.latency(0.99));
    verdict.count(&format!("{whose}load_cpu_us_per_message"), cpu(std::slice::from_ref(side)));
}
