//! What one unit of a batch meets is no other unit's business.

use crate::store::{Fixture, create, fixture::outcome_codes, to_queue, update};
use sagabus_core::OutboxId;

/// (h): one stale unit among a hundred; and one duplicate.
pub async fn one_bad_among_a_hundred(fixture: Fixture) {
    let instance = fixture.born("busy").await;
    let seen = fixture.unit();
    fixture.apply(seen.clone()).await;
    let mut units: Vec<_> =
        (0..100).map(|n| fixture.writes(create(&format!("k{n}"), fixture.instance(), &b"x"[..]))).collect();
    units[50].saga = Some(update("busy", instance, 9, &b"bad"[..]));
    units[70].message_id = seen.message_id;
    let outcomes = outcome_codes(&fixture.commit(units).await);
    let expected: String = (0..100)
        .map(|n| {
            if n == 50 {
                'S'
            } else if n == 70 {
                'D'
            } else {
                'A'
            }
        })
        .collect();
    assert_eq!(outcomes, expected);
    assert_eq!((fixture.count("saga").await, fixture.inbox().await), (99, 100));
    assert_eq!(fixture.version("busy").await, Some((1, b"born".to_vec())));
}

/// (h): all kinds of outcomes, in the order of the units.
pub async fn outcomes_are_in_order(fixture: Fixture) {
    let seen = fixture.unit();
    fixture.apply(seen.clone()).await;
    let stale = || fixture.writes(update("none", fixture.instance(), 1, &b"x"[..]));
    let units = vec![stale(), fixture.unit(), seen.clone(), fixture.unit(), stale(), fixture.unit()];
    assert_eq!(outcome_codes(&fixture.commit(units).await), "SADASA");
    let only_bad = vec![stale(), seen, stale()];
    assert_eq!(outcome_codes(&fixture.commit(only_bad).await), "SDS");
}

/// An empty batch is nothing, and a large one is no problem.
pub async fn empty_and_large_batches(fixture: Fixture) {
    assert!(fixture.commit(Vec::new()).await.is_empty());
    let units: Vec<_> = (0..500)
        .map(|n| {
            let mut unit = fixture.writes(create(&format!("k{n}"), fixture.instance(), vec![b'x'; 400]));
            unit.sends.push(to_queue("q", fixture.message()));
            unit.timers.push(fixture.past_timer(&format!("k{n}")));
            unit
        })
        .collect();
    let reply = fixture.split(units).await;
    assert_eq!(outcome_codes(&reply.outcomes), "A".repeat(500));
    assert_eq!(
        (fixture.count("saga").await, fixture.count("outbox").await, fixture.count("timer").await),
        (500, 500, 500)
    );
}

/// Contract (e): confirmed outbox rows go with the next commit, even one of which nothing applies.
pub async fn sent_rows_ride_along(fixture: Fixture) {
    let mut unit = fixture.unit();
    unit.sends = (0..6).map(|_| to_queue("q", fixture.message())).collect();
    let (ids, _) = fixture.split_one(unit.clone()).await;
    for (sent, units) in [(&ids[..2], vec![fixture.unit()]), (&ids[2..4], vec![unit]), (&ids[4..5], Vec::new())] {
        let mut batch = fixture.batch(false, units);
        batch.sent = sent.to_vec();
        let reply = fixture.store.commit(batch).await;
        assert!(reply.cleaned, "{reply:?}");
    }
    let left = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), ids[5..]);
    // once more, and ids that never were: nothing
    let mut batch = fixture.batch(false, vec![fixture.unit()]);
    batch.sent = vec![ids[0], OutboxId(1 << 40)];
    assert!(fixture.store.commit(batch).await.cleaned);
    assert_eq!(fixture.count("outbox").await, 1);
}

/// (h): batches of several processes for the same and other keys at once: each unit has one right outcome.
pub async fn racing_batches(fixture: Fixture) {
    let beds = [fixture.other().await, fixture.other().await, fixture.other().await];
    let work = beds.iter().map(|fixture| async move {
        let mut applied = 0;
        for round in 0..10 {
            // one key that all want, and keys of one's own
            let mut units = vec![fixture.writes(create(&format!("shared{round}"), fixture.instance(), &b"x"[..]))];
            units.extend(
                (0..5).map(|_| fixture.writes(create(&fixture.id().to_string(), fixture.instance(), &b"x"[..]))),
            );
            let outcomes = outcome_codes(&fixture.commit(units).await);
            assert!(outcomes == "AAAAAA" || outcomes == "SAAAAA", "{outcomes}");
            applied += u64::from(outcomes.starts_with('A'));
        }
        applied
    });
    let shared: u64 = futures::future::join_all(work).await.into_iter().sum();
    assert_eq!((shared, fixture.count("saga").await), (10, 160));
}

/// After an unknown outcome the gate tells: repeated through any handle, the unit is a duplicate and its sends are
/// found in the outbox.
pub async fn the_gate_tells_after_an_unknown_outcome(fixture: Fixture) {
    let mut unit = fixture.unit();
    unit.sends = vec![to_queue("q", fixture.message()), to_queue("q", fixture.message())];
    let _lost_answer = fixture.split(vec![unit.clone()]).await;
    let other = fixture.other().await;
    assert!(other.probe(unit.message_id).await);
    assert_eq!(outcome_codes(&fixture.split(vec![unit.clone()]).await.outcomes), "D");
    assert_eq!(outcome_codes(&other.split(vec![unit.clone()]).await.outcomes), "D");
    let rows = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 10).await.expect("own rows");
    let ids = |list: &[sagabus_core::Outgoing]| list.iter().map(|o| o.message.headers.message_id).collect::<Vec<_>>();
    assert_eq!(ids(&rows.into_iter().map(|row| row.outgoing).collect::<Vec<_>>()), ids(&unit.sends));
}
