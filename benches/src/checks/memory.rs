use super::{Turns, counts, say};
use crate::{
    args::{Common, Spec, Who, Work},
    child,
    verdict::Verdict,
};
use anyhow::Result;

/// How much memory may grow between the second and the last tenth, in MB.
const MOST_GROWTH: f64 = 16.0;

pub(super) fn run(common: &Common) -> Result<Verdict> {
    let mut verdict = Verdict::start("bench-memory");
    // a million unless somebody wants fewer
    let messages = if common.messages == 100_000 { 1_000_000 } else { common.messages };
    let side = child::run(&Spec { messages, ..common.spec(Who::Engine, Work::Saga) })?;
    say(common, "engine", &side);
    let at = |percent: u64| side.more.get(&format!("rss_mb_at_{percent:02}")).copied().unwrap_or(0.0);
    for percent in (10..100).step_by(10) {
        common.say(format_args!("  after {percent} %: {} MB", at(percent)));
    }
    let growth = at(90) - at(20);
    verdict.count("messages", messages);
    verdict.count("rss_early_mb", at(20));
    verdict.count("rss_late_mb", at(90));
    verdict.count("growth_mb", growth);
    counts(&mut verdict, &Turns { engine: vec![side], baseline: Vec::new() });
    verdict.require(growth <= MOST_GROWTH, format!("memory grew by {growth} MB, {MOST_GROWTH} are allowed"));
    Ok(verdict)
}
