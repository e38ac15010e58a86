//! What makes a unit apply at most once.

use crate::store::{
    Bed,
    bed::{letters, queue_gate},
    create, to_queue, update,
};
use sagabus_core::{Gate, LoadRequest, MessageId, Outcome, RowGate, RowTable, UnitOfWork};
use std::time::Duration;
use uuid::Uuid;

/// The unit applies, and then never again: in a batch of its own, with others, through another handle.
async fn opens_once(bed: &Bed, unit: UnitOfWork) {
    assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "A", "{:?}", unit.gate);
    assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "D", "{:?}", unit.gate);
    assert_eq!(letters(&bed.commit(vec![bed.unit(), unit.clone(), bed.unit()]).await), "ADA");
    assert_eq!(letters(&bed.other().await.commit(vec![unit]).await), "D");
}

/// The inbox opens once.
pub async fn inbox_opens_once(bed: Bed) {
    let unit = bed.unit();
    let id = unit.message_id;
    assert!(!bed.probe(id).await);
    opens_once(&bed, unit).await;
    assert!(bed.probe(id).await);
}

/// One event for two handlers is two units, and each has its own gate.
pub async fn inbox_is_per_handler(bed: Bed) {
    let id = bed.id();
    let units = ["order", "audit", "Order"].map(|handler| bed.unit_of(handler, id, Gate::Inbox));
    for unit in &units {
        bed.apply(unit.clone()).await;
    }
    assert_eq!(letters(&bed.commit(units.to_vec()).await), "DDD");
}

/// The same id at two endpoints runs at both.
pub async fn inbox_is_per_endpoint(bed: Bed) {
    let unit = bed.unit();
    let other = bed.endpoint("billing");
    bed.apply(unit.clone()).await;
    assert!(!other.probe(unit.message_id).await);
    other.apply(unit.clone()).await;
    assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "D");
    assert_eq!(letters(&other.commit(vec![unit]).await), "D");
}

/// What one process committed, another one sees at once.
pub async fn inbox_is_seen_by_other_processes(bed: Bed) {
    let other = bed.other().await;
    let unit = bed.unit();
    bed.apply(unit.clone()).await;
    assert!(other.probe(unit.message_id).await);
    assert_eq!(letters(&other.commit(vec![unit]).await), "D");
    let unit = other.unit();
    other.apply(unit.clone()).await;
    assert!(bed.probe(unit.message_id).await);
}

/// Of units for one message that commit at the same time from several processes, one applies.
pub async fn one_of_many_racers_wins(bed: Bed) {
    let mut beds = vec![bed.other().await, bed.other().await, bed.other().await];
    beds.push(bed);
    for round in 0..10 {
        let id = beds[0].id();
        let tries = beds.iter().cycle().take(12).map(|bed| async {
            let mut unit = bed.unit_of("order", id, Gate::Inbox);
            unit.saga = Some(create(&format!("{round}-{}", bed.id()), bed.instance(), &b"x"[..]));
            bed.commit_one(unit).await
        });
        let outcomes = futures::future::join_all(tries).await;
        let mut seen: Vec<char> = letters(&outcomes).chars().collect();
        seen.sort_unstable();
        assert_eq!(seen.iter().collect::<String>(), "ADDDDDDDDDDD");
        assert_eq!(beds[0].count("saga").await, round + 1);
    }
}

/// A queue row is a gate.
pub async fn queue_row_opens_once(bed: Bed) {
    if bed.queues(&["in"]).await.is_none() {
        return;
    }
    bed.enqueue("in", bed.message()).await;
    let row = bed.queue("in").await.remove(0);
    opens_once(&bed, bed.unit_of("order", row.message_id, queue_gate(&row))).await;
    assert_eq!(bed.queue("in").await.len(), 0);
}

async fn due_row_opens_once(bed: Bed, table: RowTable) {
    let row = bed.row(table).await;
    assert_eq!(bed.due(table).await.len(), 1, "reading changes nothing");
    opens_once(&bed, bed.handled(&row)).await;
    assert_eq!(bed.due(table).await.len(), 0);
    assert_eq!(bed.count(table.name()).await, 0);
}

/// A timer takes effect once.
pub async fn timer_row_opens_once(bed: Bed) {
    due_row_opens_once(bed, RowTable::Timer).await;
}

/// A delayed retry runs once.
pub async fn retry_row_opens_once(bed: Bed) {
    due_row_opens_once(bed, RowTable::Retry).await;
}

/// A parked message runs once.
pub async fn parked_row_opens_once(bed: Bed) {
    due_row_opens_once(bed, RowTable::Parked).await;
}

/// A dead letter that is sent again runs once.
pub async fn dead_letter_row_opens_once(bed: Bed) {
    due_row_opens_once(bed, RowTable::DeadLetter).await;
}

/// A gate names a row and its token; with another token it is another row.
pub async fn another_token_opens_nothing(bed: Bed) {
    for table in RowTable::DUE {
        let row = bed.row(table).await;
        for token in [row.gate.token + 1, row.gate.token - 1, i64::MAX] {
            let mut unit = bed.handled(&row);
            unit.gate = Gate::Row(RowGate { token, ..row.gate });
            assert_eq!(letters(&bed.commit(vec![unit]).await), "D", "{table:?}");
        }
        bed.apply(bed.handled(&row)).await;
    }
}

/// A row that is not there is one that was handled.
pub async fn a_row_that_never_was_opens_nothing(bed: Bed) {
    for table in [RowTable::Queue].into_iter().chain(RowTable::DUE) {
        let gate = RowGate { table, id: 4_711, token: 0 };
        let unit = bed.unit_of("order", bed.id(), Gate::Row(gate));
        assert_eq!(letters(&bed.commit(vec![unit]).await), "D", "{table:?}");
    }
}

/// A gate is of one table, and a row gate leaves no inbox row: other handlers of the message still run.
pub async fn a_row_gate_leaves_the_inbox_alone(bed: Bed) {
    let row = bed.row(RowTable::Timer).await;
    for table in [RowTable::Retry, RowTable::Parked, RowTable::DeadLetter] {
        let unit = bed.unit_of("order", bed.id(), Gate::Row(RowGate { table, ..row.gate }));
        assert_eq!(letters(&bed.commit(vec![unit]).await), "D", "{table:?}");
    }
    let id = row.message.headers.message_id;
    bed.apply(bed.handled(&row)).await;
    assert!(!bed.probe(id).await);
    bed.apply(bed.unit_of("order", id, Gate::Inbox)).await;
}

/// An id that says nothing of its age, or something odd, is recognised like any other.
pub async fn old_and_foreign_ids_open_once(bed: Bed) {
    let day = 86_400_000_u128;
    let now = u128::from(bed.runtime.now().0.unsigned_abs() / 1000);
    let born = |millis: u128| Uuid::from_u128((millis << 80) | (0x7 << 76) | (0b10 << 62) | 99);
    let ids = [
        ("yesterday", born(now - day)),
        ("last week", born(now - 8 * day)),
        ("last year", born(now - 365 * day)),
        ("1970", born(0)),
        ("tomorrow", born(now + day)),
        ("next year", born(now + 365 * day)),
        ("the end of time", born((1 << 48) - 1)),
        ("foreign", MessageId::from_foreign("order-1").0),
        ("nil", Uuid::nil()),
        ("max", Uuid::max()),
        ("random", Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef)),
    ];
    for (what, id) in ids {
        let id = MessageId(id);
        let unit = bed.unit_of("order", id, Gate::Inbox);
        assert!(!bed.probe(id).await, "{what}");
        assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "A", "{what}");
        assert!(bed.probe(id).await, "{what}");
        assert_eq!(letters(&bed.commit(vec![unit]).await), "D", "{what}");
    }
    assert_eq!(bed.inbox().await, ids.len() as u64);
    bed.store.prune(Duration::from_secs(3600)).await.expect("prune");
    for (what, id) in ids {
        assert!(bed.probe(MessageId(id)).await, "{what} is younger than the horizon by its arrival");
    }
}

/// Without a gate (sends in a caller's own transaction) a unit always applies.
pub async fn no_gate_always_opens(bed: Bed) {
    let unit = bed.unit_of("", bed.id(), Gate::None);
    for _ in 0..3 {
        let mut unit = unit.clone();
        unit.sends.push(to_queue("q", bed.message()));
        assert_eq!(bed.split_one(unit).await.0.len(), 1);
    }
    assert_eq!((bed.inbox().await, bed.count("outbox").await), (0, 3));
}

/// Many probes are answered in their order.
pub async fn probes_answer_in_order(bed: Bed) {
    let ids: Vec<MessageId> = (0..60).map(|_| bed.id()).collect();
    let seen = |n: usize| n.is_multiple_of(3) || n == 59;
    let units = (0..60).filter(|n| seen(*n)).map(|n| bed.unit_of("order", ids[n], Gate::Inbox)).collect();
    assert!(bed.commit(units).await.iter().all(Outcome::is_applied));
    let mut probes: Vec<_> = ids.iter().map(|id| ("order".into(), *id)).collect();
    probes.push(("other".into(), ids[0]));
    probes.push(("order".into(), ids[0]));
    let reply = bed.load(LoadRequest { probes, ..LoadRequest::default() }).await;
    let mut expected: Vec<bool> = (0..60).map(seen).collect();
    expected.extend([false, true]);
    assert_eq!(reply.probes, expected);
}

/// A repeated message whose saga has moved on is a duplicate, not a conflict that is run again.
pub async fn duplicate_comes_before_stale(bed: Bed) {
    let instance = bed.born("k").await;
    let unit = bed.writes(update("k", instance, 1, &b"two"[..]));
    bed.apply(unit.clone()).await;
    assert_eq!(letters(&bed.commit(vec![unit]).await), "D");
    assert_eq!(bed.version("k").await, Some((2, b"two".to_vec())));
}

/// Units of several handlers for one message commit in one batch.
pub async fn handlers_of_one_message_share_a_batch(bed: Bed) {
    let id = bed.id();
    let units: Vec<_> = ["a", "b", "c"].map(|handler| bed.unit_of(handler, id, Gate::Inbox)).into();
    bed.apply(units[1].clone()).await;
    assert_eq!(letters(&bed.commit(units).await), "ADA");
}
