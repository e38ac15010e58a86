//! Units that do not apply among many that do.

use super::bed::Bed;
use sagabus_core::InstanceId;

async fn hundred(bed: &Bed) -> Vec<InstanceId> {
    let lives: Vec<InstanceId> = (0..100).map(|_| InstanceId(bed.runtime.uuid())).collect();
    let units = lives.iter().enumerate().map(|(n, life)| bed.create(&n.to_string(), *life)).collect();
    assert_eq!(bed.commit(units).await, "A".repeat(100));
    lives
}

#[tokio::test]
async fn one_stale_and_one_duplicate_among_a_hundred() {
    let bed = Bed::new().await;
    let lives = hundred(&bed).await;
    let mut units: Vec<_> = lives.iter().enumerate().map(|(n, life)| bed.update(&n.to_string(), *life, 1)).collect();
    units[17] = bed.update("17", lives[17], 5);
    let known = bed.unit();
    assert_eq!(bed.commit(vec![known.clone()]).await, "A");
    units[60].message_id = known.message_id;
    let expected: String = (0..100)
        .map(|n| {
            if n == 17 {
                'S'
            } else if n == 60 {
                'D'
            } else {
                'A'
            }
        })
        .collect();
    assert_eq!(bed.commit(units).await, expected);
    assert_eq!(bed.depth().await, 198, "the sends of the two did not leave");
    bed.close().await;
}

#[tokio::test]
async fn a_chain_is_cut_where_it_breaks() {
    let bed = Bed::new().await;
    let life = InstanceId(bed.runtime.uuid());
    let known = bed.unit();
    assert_eq!(bed.commit(vec![known.clone()]).await, "A");
    let mut units = vec![bed.create("k", life), bed.update("k", life, 1), bed.update("k", life, 2), bed.unit()];
    units[1].message_id = known.message_id;
    assert_eq!(bed.commit(units).await, "ADSA");
    assert_eq!(bed.depth().await, 1);
    let units = vec![bed.update("k", life, 1), bed.update("k", life, 7), bed.update("k", life, 8)];
    assert_eq!(bed.commit(units).await, "ASS");
    bed.close().await;
}

#[tokio::test]
async fn batches_that_share_a_commit_do_not_share_a_failure() {
    let bed = Bed::new().await;
    let lives = hundred(&bed).await;
    let mut tasks = tokio::task::JoinSet::new();
    for (n, life) in lives.iter().enumerate() {
        let good = bed.update(&n.to_string(), *life, 1);
        let bad = bed.update(&n.to_string(), InstanceId(bed.runtime.uuid()), 2);
        let batch = bed.batch(if n % 2 == 0 { vec![good] } else { vec![bad] });
        let store = bed.store.clone();
        tasks.spawn(async move {
            use sagabus_core::Store as _;
            (n, store.commit(batch).await.outcomes.remove(0))
        });
    }
    while let Some(task) = tasks.join_next().await {
        let (n, outcome) = task.unwrap();
        assert_eq!(outcome.is_applied(), n % 2 == 0, "{n}: {outcome:?}");
    }
    assert_eq!(bed.depth().await, 150);
    bed.close().await;
}
