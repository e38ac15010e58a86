//! What one unit of a batch meets is no other unit's business.

use crate::store::{Bed, bed::letters, create, to_queue, update};
use sagabus_core::OutboxId;

/// (h): one stale unit among a hundred; and one duplicate.
pub async fn one_bad_among_a_hundred(bed: Bed) {
    let instance = bed.born("busy").await;
    let seen = bed.unit();
    bed.apply(seen.clone()).await;
    let mut units: Vec<_> = (0..100).map(|n| bed.writes(create(&format!("k{n}"), bed.instance(), &b"x"[..]))).collect();
    units[50].saga = Some(update("busy", instance, 9, &b"bad"[..]));
    units[70].message_id = seen.message_id;
    let outcomes = letters(&bed.commit(units).await);
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
    assert_eq!((bed.count("saga").await, bed.inbox().await), (99, 100));
    assert_eq!(bed.version("busy").await, Some((1, b"born".to_vec())));
}

/// (h): all kinds of outcomes, in the order of the units.
pub async fn outcomes_are_in_order(bed: Bed) {
    let seen = bed.unit();
    bed.apply(seen.clone()).await;
    let stale = || bed.writes(update("none", bed.instance(), 1, &b"x"[..]));
    let units = vec![stale(), bed.unit(), seen.clone(), bed.unit(), stale(), bed.unit()];
    assert_eq!(letters(&bed.commit(units).await), "SADASA");
    let only_bad = vec![stale(), seen, stale()];
    assert_eq!(letters(&bed.commit(only_bad).await), "SDS");
}

/// An empty batch is nothing, and a large one is no problem.
pub async fn empty_and_large_batches(bed: Bed) {
    assert!(bed.commit(Vec::new()).await.is_empty());
    let units: Vec<_> = (0..500)
        .map(|n| {
            let mut unit = bed.writes(create(&format!("k{n}"), bed.instance(), vec![b'x'; 400]));
            unit.sends.push(to_queue("q", bed.message()));
            unit.timers.push(bed.past_timer(&format!("k{n}")));
            unit
        })
        .collect();
    let reply = bed.split(units).await;
    assert_eq!(letters(&reply.outcomes), "A".repeat(500));
    assert_eq!((bed.count("saga").await, bed.count("outbox").await, bed.count("timer").await), (500, 500, 500));
}

/// Contract (e): confirmed outbox rows go with the next commit, even one of which nothing applies.
pub async fn sent_rows_ride_along(bed: Bed) {
    let mut unit = bed.unit();
    unit.sends = (0..6).map(|_| to_queue("q", bed.message())).collect();
    let (ids, _) = bed.split_one(unit.clone()).await;
    for (sent, units) in [(&ids[..2], vec![bed.unit()]), (&ids[2..4], vec![unit]), (&ids[4..5], Vec::new())] {
        let mut batch = bed.batch(false, units);
        batch.sent = sent.to_vec();
        let reply = bed.store.commit(batch).await;
        assert!(reply.cleaned, "{reply:?}");
    }
    let left = bed.store.outbox_own(&bed.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), ids[5..]);
    // once more, and ids that never were: nothing
    let mut batch = bed.batch(false, vec![bed.unit()]);
    batch.sent = vec![ids[0], OutboxId(1 << 40)];
    assert!(bed.store.commit(batch).await.cleaned);
    assert_eq!(bed.count("outbox").await, 1);
}

/// (h): batches of several processes for the same and other keys at once: each unit has one right outcome.
pub async fn racing_batches(bed: Bed) {
    let beds = [bed.other().await, bed.other().await, bed.other().await];
    let work = beds.iter().map(|bed| async move {
        let mut applied = 0;
        for round in 0..10 {
            // one key that all want, and keys of one's own
            let mut units = vec![bed.writes(create(&format!("shared{round}"), bed.instance(), &b"x"[..]))];
            units.extend((0..5).map(|_| bed.writes(create(&bed.id().to_string(), bed.instance(), &b"x"[..]))));
            let outcomes = letters(&bed.commit(units).await);
            assert!(outcomes == "AAAAAA" || outcomes == "SAAAAA", "{outcomes}");
            applied += u64::from(outcomes.starts_with('A'));
        }
        applied
    });
    let shared: u64 = futures::future::join_all(work).await.into_iter().sum();
    assert_eq!((shared, bed.count("saga").await), (10, 160));
}

/// After an unknown outcome the gate tells: repeated through any handle, the unit is a duplicate and its sends are
/// found in the outbox.
pub async fn the_gate_tells_after_an_unknown_outcome(bed: Bed) {
    let mut unit = bed.unit();
    unit.sends = vec![to_queue("q", bed.message()), to_queue("q", bed.message())];
    let _lost_answer = bed.split(vec![unit.clone()]).await;
    let other = bed.other().await;
    assert!(other.probe(unit.message_id).await);
    assert_eq!(letters(&bed.split(vec![unit.clone()]).await.outcomes), "D");
    assert_eq!(letters(&other.split(vec![unit.clone()]).await.outcomes), "D");
    let rows = bed.store.outbox_own(&bed.owner, OutboxId(0), 10).await.expect("own rows");
    let ids = |list: &[sagabus_core::Outgoing]| list.iter().map(|o| o.message.headers.message_id).collect::<Vec<_>>();
    assert_eq!(ids(&rows.into_iter().map(|row| row.outgoing).collect::<Vec<_>>()), ids(&unit.sends));
}
