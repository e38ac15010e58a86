use super::{counts, engine_and_twin, sweep, turns};
use crate::{
    args::{Common, Work},
    verdict::Verdict,
};
use anyhow::Result;

pub(super) fn run(common: &Common) -> Result<Verdict> {
    let mut verdict = Verdict::start("bench-queue");
    let (engine, twin) = engine_and_twin(common, Work::Queue);
    let twin = sweep(common, &twin)?;
    let turns = turns(common, &engine, Some(&twin))?;
    counts(&mut verdict, &turns);
    Ok(verdict)
}
