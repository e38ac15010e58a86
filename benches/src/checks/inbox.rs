use super::{rate, say};
use crate::{
    args::{Inbox, Spec, Who, Work},
    child,
    measure::{median, round},
    postgres::is_postgres,
    verdict::Verdict,
};
use anyhow::Result;

/// The rate with many rows may be so much of the one with few.
const LEAST: f64 = 0.8;
/// The other file, if none is named.
const BUS: &str = "sqlite:///tmp/sagabus-bench-bus.db";

pub(super) fn run(args: &Inbox) -> Result<Verdict> {
    let common = &args.common;
    let mut verdict = Verdict::start("bench-inbox");
    let mut spec = common.spec(Who::Engine, Work::Saga);
    // only the split layout has an inbox
    let bus = if is_postgres(&spec.store) { format!("{}#bus", spec.store) } else { BUS.to_owned() };
    spec.transport.get_or_insert(bus);
    let (few, many) =
        (args.rows.iter().copied().min().unwrap_or(10_000), args.rows.iter().copied().max().unwrap_or(2_000_000));
    let (mut with_few, mut with_many) = (Vec::new(), Vec::new());
    for _ in 0..common.runs.max(1) {
        for (rows, sides) in [(few, &mut with_few), (many, &mut with_many)] {
            let side = child::run(&Spec { inbox: rows, ..spec.clone() })?;
            say(common, &format!("engine, {rows} rows"), &side);
            sides.push(side);
        }
    }
    let pairs = with_many.iter().zip(&with_few);
    let ratio = round(median(&pairs.map(|(m, f)| m.per_second() / f.per_second()).collect::<Vec<_>>()), 1000.0);
    verdict.count("rows_few", few);
    verdict.count("rows_many", many);
    verdict.count("messages_per_s_few", rate(&with_few));
    verdict.count("messages_per_s", rate(&with_many));
    verdict.count("ratio", ratio);
    if !common.no_threshold {
        verdict.require(ratio >= LEAST, format!("{ratio} of the rate with {few} rows, {LEAST} are asked for"));
    }
    Ok(verdict)
}
