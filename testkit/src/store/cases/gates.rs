//! What makes a unit apply at most once.

use crate::store::{
    Fixture, create,
    fixture::{outcome_codes, queue_gate},
    to_queue, update,
};
use sagabus_core::{Gate, LoadRequest, MessageId, Outcome, RowGate, RowTable, UnitOfWork};
use std::time::Duration;
use uuid::Uuid;

/// The unit applies, and then never again: in a batch of its own, with others, through another handle.
async fn opens_once(fixture: &Fixture, unit: UnitOfWork) {
    assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "A", "{:?}", unit.gate);
    assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "D", "{:?}", unit.gate);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.unit(), unit.clone(), fixture.unit()]).await), "ADA");
    assert_eq!(outcome_codes(&fixture.other().await.commit(vec![unit]).await), "D");
}

/// The inbox opens once.
pub async fn inbox_opens_once(fixture: Fixture) {
    let unit = fixture.unit();
    let id = unit.message_id;
    assert!(!fixture.probe(id).await);
    opens_once(&fixture, unit).await;
    assert!(fixture.probe(id).await);
}

/// One event for two handlers is two units, and each has its own gate.
pub async fn inbox_is_per_handler(fixture: Fixture) {
    let id = fixture.id();
    let units = ["order", "audit", "Order"].map(|handler| fixture.unit_of(handler, id, Gate::Inbox));
    for unit in &units {
        fixture.apply(unit.clone()).await;
    }
    assert_eq!(outcome_codes(&fixture.commit(units.to_vec()).await), "DDD");
}

/// The same id at two endpoints runs at both.
pub async fn inbox_is_per_endpoint(fixture: Fixture) {
    let unit = fixture.unit();
    let other = fixture.endpoint("billing");
    fixture.apply(unit.clone()).await;
    assert!(!other.probe(unit.message_id).await);
    other.apply(unit.clone()).await;
    assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "D");
    assert_eq!(outcome_codes(&other.commit(vec![unit]).await), "D");
}

/// What one process committed, another one sees at once.
pub async fn inbox_is_seen_by_other_processes(fixture: Fixture) {
    let other = fixture.other().await;
    let unit = fixture.unit();
    fixture.apply(unit.clone()).await;
    assert!(other.probe(unit.message_id).await);
    assert_eq!(outcome_codes(&other.commit(vec![unit]).await), "D");
    let unit = other.unit();
    other.apply(unit.clone()).await;
    assert!(fixture.probe(unit.message_id).await);
}

/// Of units for one message that commit at the same time from several processes, one applies.
pub async fn one_of_many_racers_wins(fixture: Fixture) {
    let mut beds = vec![fixture.other().await, fixture.other().await, fixture.other().await];
    beds.push(fixture);
    for round in 0..10 {
        let id = beds[0].id();
        let tries = beds.iter().cycle().take(12).map(|fixture| async {
            let mut unit = fixture.unit_of("order", id, Gate::Inbox);
            unit.saga = Some(create(&format!("{round}-{}", fixture.id()), fixture.instance(), &b"x"[..]));
            fixture.commit_one(unit).await
        });
        let outcomes = futures::future::join_all(tries).await;
        let mut seen: Vec<char> = outcome_codes(&outcomes).chars().collect();
        seen.sort_unstable();
        assert_eq!(seen.iter().collect::<String>(), "ADDDDDDDDDDD");
        assert_eq!(beds[0].count("saga").await, round + 1);
    }
}

/// A queue row is a gate.
pub async fn queue_row_opens_once(fixture: Fixture) {
    if fixture.queues(&["in"]).await.is_none() {
        return;
    }
    fixture.enqueue("in", fixture.message()).await;
    let row = fixture.queue("in").await.remove(0);
    opens_once(&fixture, fixture.unit_of("order", row.message_id, queue_gate(&row))).await;
    assert_eq!(fixture.queue("in").await.len(), 0);
}

async fn due_row_opens_once(fixture: Fixture, table: RowTable) {
    let row = fixture.row(table).await;
    assert_eq!(fixture.due(table).await.len(), 1, "reading changes nothing");
    opens_once(&fixture, fixture.handled(&row)).await;
    assert_eq!(fixture.due(table).await.len(), 0);
    assert_eq!(fixture.count(table.name()).await, 0);
}

/// A timer takes effect once.
pub async fn timer_row_opens_once(fixture: Fixture) {
    due_row_opens_once(fixture, RowTable::Timer).await;
}

/// A delayed retry runs once.
pub async fn retry_row_opens_once(fixture: Fixture) {
    due_row_opens_once(fixture, RowTable::Retry).await;
}

/// A parked message runs once.
pub async fn parked_row_opens_once(fixture: Fixture) {
    due_row_opens_once(fixture, RowTable::Parked).await;
}

/// A dead letter that is sent again runs once.
pub async fn dead_letter_row_opens_once(fixture: Fixture) {
    due_row_opens_once(fixture, RowTable::DeadLetter).await;
}

/// A gate names a row and its token; with another token it is another row.
pub async fn another_token_opens_nothing(fixture: Fixture) {
    for table in RowTable::DUE {
        let row = fixture.row(table).await;
        for token in [row.gate.token + 1, row.gate.token - 1, i64::MAX] {
            let mut unit = fixture.handled(&row);
            unit.gate = Gate::Row(RowGate { token, ..row.gate });
            assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D", "{table:?}");
        }
        fixture.apply(fixture.handled(&row)).await;
    }
}

/// A row that is not there is one that was handled.
pub async fn a_row_that_never_was_opens_nothing(fixture: Fixture) {
    for table in [RowTable::Queue].into_iter().chain(RowTable::DUE) {
        let gate = RowGate { table, id: 4_711, token: 0 };
        let unit = fixture.unit_of("order", fixture.id(), Gate::Row(gate));
        assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D", "{table:?}");
    }
}

/// A gate is of one table, and a row gate leaves no inbox row: other handlers of the message still run.
pub async fn a_row_gate_leaves_the_inbox_alone(fixture: Fixture) {
    let row = fixture.row(RowTable::Timer).await;
    for table in [RowTable::Retry, RowTable::Parked, RowTable::DeadLetter] {
        let unit = fixture.unit_of("order", fixture.id(), Gate::Row(RowGate { table, ..row.gate }));
        assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D", "{table:?}");
    }
    let id = row.message.headers.message_id;
    fixture.apply(fixture.handled(&row)).await;
    assert!(!fixture.probe(id).await);
    fixture.apply(fixture.unit_of("order", id, Gate::Inbox)).await;
}

/// An id that says nothing of its age, or something odd, is recognised like any other.
pub async fn old_and_foreign_ids_open_once(fixture: Fixture) {
    let day = 86_400_000_u128;
    let now = u128::from(fixture.runtime.now().0.unsigned_abs() / 1000);
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
        let unit = fixture.unit_of("order", id, Gate::Inbox);
        assert!(!fixture.probe(id).await, "{what}");
        assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "A", "{what}");
        assert!(fixture.probe(id).await, "{what}");
        assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D", "{what}");
    }
    assert_eq!(fixture.inbox().await, ids.len() as u64);
    fixture.store.prune(Duration::from_secs(3600)).await.expect("prune");
    for (what, id) in ids {
        assert!(fixture.probe(MessageId(id)).await, "{what} is younger than the horizon by its arrival");
    }
}

/// Without a gate (sends in a caller's own transaction) a unit always applies.
pub async fn no_gate_always_opens(fixture: Fixture) {
    let unit = fixture.unit_of("", fixture.id(), Gate::None);
    for _ in 0..3 {
        let mut unit = unit.clone();
        unit.sends.push(to_queue("q", fixture.message()));
        assert_eq!(fixture.split_one(unit).await.0.len(), 1);
    }
    assert_eq!((fixture.inbox().await, fixture.count("outbox").await), (0, 3));
}

/// Many probes are answered in their order.
pub async fn probes_answer_in_order(fixture: Fixture) {
    let ids: Vec<MessageId> = (0..60).map(|_| fixture.id()).collect();
    let seen = |n: usize| n.is_multiple_of(3) || n == 59;
    let units = (0..60).filter(|n| seen(*n)).map(|n| fixture.unit_of("order", ids[n], Gate::Inbox)).collect();
    assert!(fixture.commit(units).await.iter().all(Outcome::is_applied));
    let mut probes: Vec<_> = ids.iter().map(|id| ("order".into(), *id)).collect();
    probes.push(("other".into(), ids[0]));
    probes.push(("order".into(), ids[0]));
    let reply = fixture.load(LoadRequest { probes, ..LoadRequest::default() }).await;
    let mut expected: Vec<bool> = (0..60).map(seen).collect();
    expected.extend([false, true]);
    assert_eq!(reply.probes, expected);
}

/// A repeated message whose saga has moved on is a duplicate, not a conflict that is run again.
pub async fn duplicate_comes_before_stale(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let unit = fixture.writes(update("k", instance, 1, &b"two"[..]));
    fixture.apply(unit.clone()).await;
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
    assert_eq!(fixture.version("k").await, Some((2, b"two".to_vec())));
}

/// Units of several handlers for one message commit in one batch.
pub async fn handlers_of_one_message_share_a_batch(fixture: Fixture) {
    let id = fixture.id();
    let units: Vec<_> = ["a", "b", "c"].map(|handler| fixture.unit_of(handler, id, Gate::Inbox)).into();
    fixture.apply(units[1].clone()).await;
    assert_eq!(outcome_codes(&fixture.commit(units).await), "ADA");
}
