//! Units that do not apply among many that do.

use super::fixture::Fixture;
use sagabus_core::InstanceId;

async fn hundred(fixture: &Fixture) -> Vec<InstanceId> {
    let instances: Vec<InstanceId> = (0..100).map(|_| InstanceId(fixture.runtime.uuid())).collect();
    let units = instances.iter().enumerate().map(|(n, instance)| fixture.create(&n.to_string(), *instance)).collect();
    assert_eq!(fixture.commit(units).await, "A".repeat(100));
    instances
}

#[tokio::test]
async fn one_stale_and_one_duplicate_among_a_hundred() {
    let fixture = Fixture::new().await;
    let instances = hundred(&fixture).await;
    let mut units: Vec<_> =
        instances.iter().enumerate().map(|(n, instance)| fixture.update(&n.to_string(), *instance, 1)).collect();
    units[17] = fixture.update("17", instances[17], 5);
    let known = fixture.unit();
    assert_eq!(fixture.commit(vec![known.clone()]).await, "A");
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
    assert_eq!(fixture.commit(units).await, expected);
    assert_eq!(fixture.depth().await, 198, "the sends of the two did not leave");
    fixture.close().await;
}

#[tokio::test]
async fn a_chain_is_cut_where_it_breaks() {
    let fixture = Fixture::new().await;
    let instance = InstanceId(fixture.runtime.uuid());
    let known = fixture.unit();
    assert_eq!(fixture.commit(vec![known.clone()]).await, "A");
    let mut units = vec![
        fixture.create("k", instance),
        fixture.update("k", instance, 1),
        fixture.update("k", instance, 2),
        fixture.unit(),
    ];
    units[1].message_id = known.message_id;
    assert_eq!(fixture.commit(units).await, "ADSA");
    assert_eq!(fixture.depth().await, 1);
    let units =
        vec![fixture.update("k", instance, 1), fixture.update("k", instance, 7), fixture.update("k", instance, 8)];
    assert_eq!(fixture.commit(units).await, "ASS");
    fixture.close().await;
}

#[tokio::test]
async fn batches_that_share_a_commit_do_not_share_a_failure() {
    let fixture = Fixture::new().await;
    let instances = hundred(&fixture).await;
    let mut tasks = tokio::task::JoinSet::new();
    for (n, instance) in instances.iter().enumerate() {
        let good = fixture.update(&n.to_string(), *instance, 1);
        let bad = fixture.update(&n.to_string(), InstanceId(fixture.runtime.uuid()), 2);
        let batch = fixture.batch(if n % 2 == 0 { vec![good] } else { vec![bad] });
        let store = fixture.store.clone();
        tasks.spawn(async move {
            use sagabus_core::Store as _;
            (n, store.commit(batch).await.outcomes.remove(0))
        });
    }
    while let Some(task) = tasks.join_next().await {
        let (n, outcome) = task.unwrap();
        assert_eq!(outcome.is_applied(), n % 2 == 0, "{n}: {outcome:?}");
    }
    assert_eq!(fixture.depth().await, 150);
    fixture.close().await;
}
