//! Attempts are counted durably, so that a message that kills the process is found.

use crate::store::{Fixture, fixture::outcome_codes};
use sagabus_core::Gate;

async fn count(fixture: &Fixture, handler: &str, message: sagabus_core::MessageId) -> u32 {
    fixture.store.count_attempt(&fixture.owner.endpoint, handler, message).await.expect("count")
}

/// Counts go up, and survive the process: another handle goes on.
pub async fn counts_survive_the_process(fixture: Fixture) {
    let id = fixture.id();
    for expected in 1..=3 {
        assert_eq!(count(&fixture, "order", id).await, expected);
    }
    let other = fixture.other().await;
    assert_eq!(count(&other, "order", id).await, 4);
    fixture.store.close().await;
    assert_eq!(count(&fixture.other().await, "order", id).await, 5);
    assert_eq!(other.count("attempt").await, 1);
}

/// Each handler, message and endpoint has a count of its own.
pub async fn counts_do_not_mix(fixture: Fixture) {
    let id = fixture.id();
    assert_eq!(count(&fixture, "order", id).await, 1);
    assert_eq!(count(&fixture, "audit", id).await, 1);
    assert_eq!(count(&fixture, "order", fixture.id()).await, 1);
    assert_eq!(count(&fixture.endpoint("billing"), "order", id).await, 1);
    assert_eq!(count(&fixture, "order", id).await, 2);
}

/// A counted unit that commits takes its count with it; one that is stale, or another message's, does not.
pub async fn a_commit_ends_the_count(fixture: Fixture) {
    let mut unit = fixture.unit();
    unit.has_attempt_row = true;
    let other = fixture.id();
    count(&fixture, "order", unit.message_id).await;
    count(&fixture, "order", other).await;
    let mut stale = unit.clone();
    stale.saga = Some(crate::store::update("none", fixture.instance(), 1, &b"x"[..]));
    assert_eq!(outcome_codes(&fixture.commit(vec![stale]).await), "S");
    assert_eq!(count(&fixture, "order", unit.message_id).await, 2);
    fixture.apply(unit.clone()).await;
    assert_eq!(fixture.count("attempt").await, 1);
    assert_eq!(count(&fixture, "order", other).await, 2);
    assert_eq!(count(&fixture, "order", unit.message_id).await, 1, "it starts anew");
}

/// A unit of a row gate ends its count too.
pub async fn a_row_gate_ends_the_count(fixture: Fixture) {
    let row = fixture.row(sagabus_core::RowTable::Retry).await;
    let mut unit = fixture.handled(&row);
    assert!(matches!(unit.gate, Gate::Row(_)));
    unit.has_attempt_row = true;
    count(&fixture, "order", unit.message_id).await;
    fixture.apply(unit).await;
    assert_eq!(fixture.count("attempt").await, 0);
}

/// Processes that count at the same time lose no count.
pub async fn racing_counts(fixture: Fixture) {
    let (id, other) = (fixture.id(), fixture.other().await);
    let counts = [&fixture, &other].into_iter().cycle().take(20).map(|fixture| count(fixture, "order", id));
    let mut seen = futures::future::join_all(counts).await;
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

/// Whatever a store does at once, each of many counts at the same time counts exactly one, of its own message.
pub async fn many_counts_at_once(fixture: Fixture) {
    const MESSAGES: usize = 40;
    const EACH: usize = 5;
    let other = fixture.other().await;
    let ids: Vec<_> = (0..MESSAGES).map(|_| fixture.id()).collect();
    // the counts of a message are spread among those of others, handlers and processes
    let calls: Vec<_> = (0..EACH).flat_map(|_| ids.iter().enumerate()).collect();
    let counts = calls.iter().enumerate().map(|(call, (n, id))| {
        let (fixture, handler) =
            (if call % 3 == 0 { &other } else { &fixture }, if n % 4 == 0 { "audit\0" } else { "order" });
        count(fixture, handler, **id)
    });
    let counts = futures::future::join_all(counts).await;
    for n in 0..MESSAGES {
        let mut seen: Vec<_> = counts.iter().skip(n).step_by(MESSAGES).copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=u32::try_from(EACH).expect("few")).collect::<Vec<_>>(), "of message {n}");
    }
    assert_eq!(fixture.count("attempt").await, MESSAGES as u64);
}

/// Callers that go away take nobody else's count with them, and count at most one each.
pub async fn dropped_counts_harm_nobody(fixture: Fixture) {
    let (dropped, kept) = (fixture.id(), fixture.id());
    for round in 1..=20 {
        let mut gone: Vec<_> = (0..4).map(|_| Box::pin(count(&fixture, "order", dropped))).collect();
        for call in &mut gone {
            // as far as it goes without waiting
            let _ = futures::poll!(call);
        }
        let stays = count(&fixture, "order", kept);
        drop(gone);
        assert_eq!(stays.await, round);
    }
    let counted = count(&fixture, "order", dropped).await;
    assert!((1..=81).contains(&counted), "{counted} counts of 80 calls that were dropped, and one");
}

/// What is being counted when the store closes is answered: counted, or not.
pub async fn counts_end_with_the_store(fixture: Fixture) {
    let (id, other) = (fixture.id(), fixture.other().await);
    let counts = futures::future::join_all((0..30).map(|_| fixture.store.count_attempt("shop", "order", id)));
    let (counts, ()) = futures::join!(counts, fixture.store.close());
    let counted: Vec<u32> = counts.iter().filter_map(|count| count.as_ref().ok()).copied().collect();
    assert!(counts.iter().flat_map(|count| count.as_ref().err()).all(sagabus_core::Error::is_closed), "{counts:?}");
    let refused = fixture.store.count_attempt("shop", "order", id).await;
    assert!(refused.as_ref().is_err_and(sagabus_core::Error::is_closed), "{refused:?}");
    assert_eq!(count(&other, "order", id).await as usize, counted.len() + 1, "{counts:?}");
}
