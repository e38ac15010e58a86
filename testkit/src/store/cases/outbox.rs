//! Committed but unsent messages, and who sends them.

use crate::store::{Fixture, to_queue, to_topic};
use sagabus_core::{Envelope, Lease, LeaseRequest, OutboxId, OutboxRow};
use std::time::Duration;

const TTL: Duration = Duration::from_millis(250);

async fn record(fixture: &Fixture, messages: Vec<Envelope>) -> (Vec<OutboxId>, bool) {
    let mut unit = fixture.unit();
    unit.sends = messages.into_iter().map(|message| to_queue("q", message)).collect();
    fixture.split_one(unit).await
}

async fn own(fixture: &Fixture) -> Vec<OutboxId> {
    ids(&fixture.store.outbox_own(&fixture.owner, OutboxId(0), 100).await.expect("own rows"))
}

async fn orphans(fixture: &Fixture) -> Vec<OutboxRow> {
    fixture.store.outbox_orphans(&fixture.owner, 100).await.expect("orphans")
}

fn ids(rows: &[OutboxRow]) -> Vec<OutboxId> {
    rows.iter().map(|row| row.id).collect()
}

async fn beat(fixture: &Fixture) -> Lease {
    let request = LeaseRequest {
        group: fixture.owner.endpoint.to_string(),
        node: fixture.owner.node,
        ttl: TTL,
        shards: true,
        release: Vec::new(),
    };
    fixture.store.leases().heartbeat(&request).await.expect("heartbeat")
}

/// Rows are listed oldest first, with message and destination, in pages, until they are deleted.
pub async fn own_rows_until_they_are_deleted(fixture: Fixture) {
    let mut unit = fixture.unit();
    unit.sends = vec![to_queue("q", fixture.keyed("ü")), to_topic("t", fixture.message())];
    let (mut all, _) = fixture.split_one(unit.clone()).await;
    for _ in 0..3 {
        let (more, behind) = record(&fixture, vec![fixture.message(), fixture.message()]).await;
        assert!(!behind);
        all.extend(more);
    }
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "ids grow in commit order: {all:?}");
    let page = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 5).await.expect("a page");
    let rest = fixture.store.outbox_own(&fixture.owner, page[4].id, 5).await.expect("the rest");
    assert_eq!([ids(&page), ids(&rest)].concat(), all);
    for (row, sent) in page.iter().zip(&unit.sends) {
        assert_eq!((&row.outgoing.to, &row.outgoing.message), (&sent.to, &sent.message));
    }
    fixture.store.outbox_delete(&all[1..7]).await.expect("delete");
    fixture.store.outbox_delete(&all[..2]).await.expect("delete what is partly gone");
    assert_eq!(own(&fixture).await, all[7..]);
    assert_eq!(fixture.count("outbox").await, 1);
}

/// Rows of a node that lives are nobody else's; after its lease has lapsed they are taken over, oldest first, once.
pub async fn orphans_wait_for_the_lease(fixture: Fixture) {
    let (one, two) = (fixture.other().await, fixture.other().await);
    beat(&fixture).await;
    beat(&one).await;
    let (rows, _) = record(&fixture, vec![fixture.message(), fixture.message(), fixture.message()]).await;
    assert_eq!(orphans(&one).await.len(), 0, "its owner lives");
    // the heir must itself have an unbroken lease; meanwhile the owner falls silent
    let first = fixture
        .until("the rows are orphans", || async {
            beat(&one).await;
            let rows = one.store.outbox_orphans(&one.owner, 2).await.expect("orphans");
            Some(rows).filter(|rows| !rows.is_empty())
        })
        .await;
    assert_eq!(ids(&first), rows[..2]);
    assert_eq!(ids(&orphans(&one).await), rows[2..]);
    assert_eq!(own(&one).await, rows);
    assert_eq!(own(&fixture).await, []);
    beat(&one).await;
    beat(&two).await;
    assert_eq!((orphans(&two).await.len(), orphans(&one).await.len()), (0, 0));
}

/// A node that lives keeps its rows however old they are.
pub async fn age_alone_orphans_nothing(fixture: Fixture) {
    let other = fixture.other().await;
    let (rows, _) = record(&fixture, vec![fixture.message()]).await;
    let start = fixture.runtime.elapsed();
    fixture
        .until("three times the ttl has passed", || async {
            beat(&fixture).await;
            beat(&other).await;
            assert_eq!(orphans(&other).await.len(), 0);
            (fixture.runtime.elapsed() - start > TTL * 3).then_some(())
        })
        .await;
    assert_eq!(own(&fixture).await, rows);
}

/// A node that leaves hands its rows over at once; its own rows are no orphans to itself.
pub async fn a_clean_stop_hands_over(fixture: Fixture) {
    let other = fixture.other().await;
    beat(&fixture).await;
    beat(&other).await;
    let (rows, _) = record(&fixture, vec![fixture.message(), fixture.message()]).await;
    let (mine, _) = record(&other, vec![fixture.message()]).await;
    fixture.store.leases().leave("shop", fixture.owner.node).await.expect("leave");
    assert_eq!(ids(&orphans(&other).await), rows);
    let all = own(&other).await;
    assert!(all.len() == 3 && all.contains(&mine[0]), "{all:?}");
}

/// Only nodes of the endpoint take its rows.
pub async fn endpoints_do_not_mix(fixture: Fixture) {
    let billing = fixture.endpoint("billing");
    beat(&billing).await;
    let (rows, _) = record(&fixture, vec![fixture.message()]).await;
    let (theirs, _) = record(&billing, vec![fixture.message()]).await;
    assert_eq!(orphans(&billing).await.len(), 0);
    assert_eq!((own(&fixture).await, own(&billing).await), (rows, theirs));
}

/// A row that can never be sent becomes a dead letter of the endpoint, with the reason.
pub async fn buried_rows_are_dead_letters(fixture: Fixture) {
    let lost = fixture.message();
    let (rows, _) = record(&fixture, vec![fixture.message(), lost.clone()]).await;
    fixture.store.outbox_dead_letter(&fixture.owner, &[(rows[1], "unroutable: no queue".into())]).await.expect("bury");
    assert_eq!(own(&fixture).await, rows[..1]);
    let dead = fixture.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0].message, dead[0].retrying), (&lost, false));
    assert!(dead[0].reason.contains("unroutable: no queue"), "{}", dead[0].reason);
    // repeated after an unknown outcome: no second one
    fixture.store.outbox_dead_letter(&fixture.owner, &[(rows[1], "again".into())]).await.expect("bury");
    assert_eq!(fixture.dead().await.len(), 1);
}

/// Whoever commits behind an unsent row of the same order key with another owner is told so, and does not find its
/// own row to send until that one is gone.
pub async fn behind_another_owner(fixture: Fixture) {
    let other = fixture.other().await;
    let (first, behind) = record(&fixture, vec![fixture.keyed("k")]).await;
    assert!(!behind);
    let (second, behind) = record(&other, vec![fixture.keyed("k")]).await;
    assert!(behind);
    assert_eq!(own(&other).await, []);
    let mixed = record(&other, vec![fixture.message(), fixture.keyed("K")]).await;
    assert!(!mixed.1, "without a key, or under another one, nobody is in the way");
    assert_eq!(own(&other).await, mixed.0);
    let (third, behind) = record(&fixture, vec![fixture.keyed("k")]).await;
    assert!(behind, "the second one is in between");
    assert_eq!(own(&fixture).await, first);
    fixture.store.outbox_delete(&first).await.expect("delete");
    assert_eq!(own(&other).await, [second.clone(), mixed.0].concat());
    assert_eq!(own(&fixture).await, []);
    fixture.store.outbox_delete(&second).await.expect("delete");
    assert_eq!(own(&fixture).await, third);
}

/// Rows of one's own are in nobody's way.
pub async fn not_behind_oneself(fixture: Fixture) {
    for _ in 0..3 {
        let (_, behind) = record(&fixture, vec![fixture.keyed("k"), fixture.keyed("k")]).await;
        assert!(!behind);
    }
    assert_eq!(own(&fixture).await.len(), 6);
}
