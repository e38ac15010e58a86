//! Attempts are counted durably, so that a message that kills the process is found.

use crate::store::{Bed, bed::letters};
use sagabus_core::Gate;

async fn count(bed: &Bed, handler: &str, message: sagabus_core::MessageId) -> u32 {
    bed.store.count_attempt(&bed.owner.endpoint, handler, message).await.expect("count")
}

/// k4: counts go up, and survive the process: another handle goes on.
pub async fn counts_survive_the_process(bed: Bed) {
    let id = bed.id();
    for expected in 1..=3 {
        assert_eq!(count(&bed, "order", id).await, expected);
    }
    let other = bed.other().await;
    assert_eq!(count(&other, "order", id).await, 4);
    bed.store.close().await;
    assert_eq!(count(&bed.other().await, "order", id).await, 5);
    assert_eq!(other.count("attempt").await, 1);
}

/// k4: each handler, message and endpoint has a count of its own.
pub async fn counts_do_not_mix(bed: Bed) {
    let id = bed.id();
    assert_eq!(count(&bed, "order", id).await, 1);
    assert_eq!(count(&bed, "audit", id).await, 1);
    assert_eq!(count(&bed, "order", bed.id()).await, 1);
    assert_eq!(count(&bed.endpoint("billing"), "order", id).await, 1);
    assert_eq!(count(&bed, "order", id).await, 2);
}

/// k1: a counted unit that commits takes its count with it; one that is stale, or another message's, does not.
pub async fn a_commit_ends_the_count(bed: Bed) {
    let mut unit = bed.unit();
    unit.counted = true;
    let other = bed.id();
    count(&bed, "order", unit.message_id).await;
    count(&bed, "order", other).await;
    let mut stale = unit.clone();
    stale.saga = Some(crate::store::update("none", bed.instance(), 1, &b"x"[..]));
    assert_eq!(letters(&bed.commit(vec![stale]).await), "S");
    assert_eq!(count(&bed, "order", unit.message_id).await, 2);
    bed.apply(unit.clone()).await;
    assert_eq!(bed.count("attempt").await, 1);
    assert_eq!(count(&bed, "order", other).await, 2);
    assert_eq!(count(&bed, "order", unit.message_id).await, 1, "it starts anew");
}

/// k4: a unit of a row gate ends its count too.
pub async fn a_row_gate_ends_the_count(bed: Bed) {
    let row = bed.row(sagabus_core::RowTable::Retry).await;
    let mut unit = bed.handled(&row);
    assert!(matches!(unit.gate, Gate::Row(_)));
    unit.counted = true;
    count(&bed, "order", unit.message_id).await;
    bed.apply(unit).await;
    assert_eq!(bed.count("attempt").await, 0);
}

/// k4: processes that count at the same time lose no count.
pub async fn racing_counts(bed: Bed) {
    let (id, other) = (bed.id(), bed.other().await);
    let counts = [&bed, &other].into_iter().cycle().take(20).map(|bed| count(bed, "order", id));
    let mut seen = futures::future::join_all(counts).await;
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}
