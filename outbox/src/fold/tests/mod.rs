//! Folding random batches comes to the same tables as applying their units one by one.

mod draw;
mod tables;

use super::{Broken, fold};
use crate::dedup::DedupSlot;
use draw::Draw;
use sagabus_core::{CommitBatch, Gate, InstanceId, MessageId, NodeId, Owner, SagaChange, SagaWrite, UnitOfWork};
use uuid::Uuid;

fn batch(units: Vec<UnitOfWork>) -> CommitBatch {
    let owner = Owner { endpoint: "shop".into(), node: NodeId(Uuid::nil()) };
    CommitBatch { owner, joined: true, units, sent: Vec::new() }
}

fn undated(_: usize, _: &UnitOfWork) -> DedupSlot {
    DedupSlot::UNDATED
}

#[test]
fn a_fold_equals_its_units_one_by_one() {
    let (mut cuts, mut shortened) = (0, 0);
    for seed in 0..2_000 {
        let mut draw = Draw::new(seed);
        let mut before = draw.tables();
        let (units, expected) = draw.units(&mut before);
        let batch = batch(units);
        let mut pending: Vec<usize> = (0..batch.units.len()).collect();
        let mut tables = before;
        while !pending.is_empty() {
            let folded = fold(&batch, &pending, undated).unwrap_or_else(|Broken| panic!("seed {seed}: broken"));
            assert!(!folded.units.is_empty(), "seed {seed}: no progress");
            assert_eq!(folded.units, pending[..folded.units.len()], "seed {seed}: not a prefix");
            tables.apply_folded(&folded);
            shortened += usize::from(folded.chains.len() < folded.units.len());
            pending.drain(..folded.units.len());
            cuts += usize::from(!pending.is_empty());
        }
        assert_eq!(tables, expected, "seed {seed}");
    }
    // the random batches have what the fold is for
    assert!(cuts > 100 && shortened > 1_000, "{cuts} cuts, {shortened} shortened");
}

#[test]
fn a_write_that_does_not_fit_breaks_the_fold() {
    let unit = |change| {
        let mut unit = UnitOfWork::new("saga".into(), MessageId(Uuid::nil()), Gate::None);
        unit.saga = Some(SagaWrite { kind: "shop/order".into(), key: "k".into(), change, aliases: Vec::new() });
        unit
    };
    let instance = |number| InstanceId(Uuid::from_u128(number));
    let update = |number, version| {
        unit(SagaChange::Update { instance: instance(number), version, state: "s".into(), schema: 1 })
    };
    let create =
        |number| unit(SagaChange::Create { instance: instance(number), state: "s".into(), schema: 1, origin: None });
    let end = |number, version| unit(SagaChange::Complete { instance: instance(number), version, keep: None });
    let folded = |units: Vec<UnitOfWork>| {
        let (all, batch) = ((0..units.len()).collect::<Vec<_>>(), batch(units));
        fold(&batch, &all, undated).map(|folded| folded.units.len())
    };
    assert_eq!(folded(vec![update(1, 3), update(1, 4), end(1, 5)]), Ok(3));
    assert_eq!(folded(vec![create(1), update(1, 1), end(1, 2), create(2)]), Ok(3), "another instance is cut off");
    for broken in [
        vec![update(1, 3), update(1, 3)],
        vec![update(1, 3), update(2, 4)],
        vec![update(1, 3), create(2)],
        vec![create(1), create(2)],
        vec![create(1), end(2, 0)],
        vec![end(1, 3), update(1, 4)],
        vec![end(1, 3), end(1, 4)],
    ] {
        assert_eq!(folded(broken), Err(Broken));
    }
}
