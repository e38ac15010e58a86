use super::{cpu, peak};
use crate::{
    args::{Spec, Timers, Who, Work},
    child,
    measure::round,
    report::Side,
    verdict::Verdict,
};
use anyhow::Result;

const LEAST: f64 = 5_000.0;
const MOST_START_SECONDS: f64 = 1.0;

pub(super) fn run(args: &Timers) -> Result<Verdict> {
    let common = &args.common;
    let mut verdict = Verdict::start("bench-timers");
    let spec = Spec { messages: args.pending, ..common.spec(Who::Engine, Work::Timers) };
    let side = child::run(&spec)?;
    let sides = std::slice::from_ref(&side);
    let more = |name: &str, side: &Side| round(side.more.get(name).copied().unwrap_or(0.0), 1000.0);
    let (early, start) = (more("early", &side), more("start_seconds", &side));
    verdict.count("pending", args.pending);
    verdict.count("messages_per_s", side.per_second().round());
    verdict.count("cpu_us_per_message", cpu(sides));
    verdict.count("start_seconds", start);
    verdict.count("rss_before_mb", more("rss_before_mb", &side));
    verdict.count("rss_mb", peak(sides));
    verdict.count("early", early);
    verdict.require(early == 0.0, format!("{early} timers came early"));
    if !common.no_threshold {
        let rate = side.per_second().round();
        verdict.require(rate >= LEAST, format!("{rate} timers a second, {LEAST} are asked for"));
        verdict.require(start < MOST_START_SECONDS, format!("starting took {start} s"));
    }
    Ok(verdict)
}
