//! Timeouts: never early, never lost, once.

use crate::store::{Fixture, KIND, complete, fixture::outcome_codes};
use sagabus_core::{Due, InstanceId, RowTable, SHARDS, TimerChange, TimerId, Timestamp};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

async fn set(fixture: &Fixture, key: &str, instance: InstanceId, due: Due) -> TimerId {
    let id = fixture.timer_id();
    let mut unit = fixture.unit();
    unit.timers.push(TimerChange::Set { id, due, message: fixture.timeout(key, instance) });
    fixture.apply(unit).await;
    id
}

async fn change(fixture: &Fixture, change: TimerChange) {
    let mut unit = fixture.unit();
    unit.timers.push(change);
    fixture.apply(unit).await;
}

async fn pending(fixture: &Fixture) -> Vec<TimerId> {
    let timers = fixture.store.admin().timers("shop", None, 1000).await.expect("timers");
    timers.into_iter().map(|timer| timer.id).collect()
}

fn cancel(kind: &str, key: &str, id: TimerId) -> TimerChange {
    TimerChange::Cancel { kind: kind.into(), key: key.into(), id }
}

/// A timer is due when its time has passed by the database's clock, and not before.
pub async fn due_in_time_and_never_early(fixture: Fixture) {
    let delay = Duration::from_millis(150);
    let instance = fixture.instance();
    let before = fixture.store.now().await.expect("now");
    set(&fixture, "k", instance, Due::After(delay)).await;
    assert_eq!(fixture.due(RowTable::Timer).await.len(), 0);
    let rows = fixture.wait_due(RowTable::Timer).await;
    let after = fixture.store.now().await.expect("now");
    assert!(after.since(before) >= delay, "early: {:?}", after.since(before));
    assert!(rows[0].due >= before.plus(delay) && rows[0].due <= after);
    assert_eq!((&*rows[0].handler, rows[0].attempts), ("order", 0));
    let headers = &rows[0].message.headers;
    assert_eq!(headers.saga.as_ref().map(|saga| saga.instance), Some(instance));
}

/// An absolute time likewise; one that is past is due at once.
pub async fn absolute_times(fixture: Fixture) {
    let now = fixture.store.now().await.expect("now");
    let soon = now.plus(Duration::from_millis(150));
    set(&fixture, "k", fixture.instance(), Due::At(soon)).await;
    set(&fixture, "k", fixture.instance(), Due::At(now.plus(HOUR))).await;
    let past = fixture.timer_id();
    change(
        &fixture,
        TimerChange::Set { id: past, due: Due::At(Timestamp(1)), message: fixture.timeout("k", fixture.instance()) },
    )
    .await;
    let rows = fixture.due(RowTable::Timer).await;
    assert_eq!(rows.len(), 1, "the past one, and none early");
    fixture.apply(fixture.handled(&rows[0])).await;
    let rows = fixture.wait_due(RowTable::Timer).await;
    assert!(fixture.store.now().await.expect("now") >= soon);
    assert_eq!((rows.len(), rows[0].due), (1, soon));
}

/// Timers come in the order of their times, in pages that leave out none.
pub async fn pages_in_order_of_time(fixture: Fixture) {
    for n in [5, 1, 4, 2, 3, 3, 3, 9, 8, 7] {
        set(&fixture, &format!("k{n}"), fixture.instance(), Due::At(Timestamp(n * 1000))).await;
    }
    let mut query = fixture.query(RowTable::Timer);
    query.limit = 3;
    let mut seen = Vec::new();
    loop {
        let page = fixture.store.due(&query).await.expect("due");
        assert!(page.rows.len() <= 3);
        let Some(last) = page.rows.last() else { break };
        query.after = Some((last.due, last.gate.id));
        seen.extend(page.rows.into_iter().map(|row| row.due.0 / 1000));
        assert!(seen.len() <= 10, "a page begins after the one before it");
    }
    assert_eq!(seen, [1, 2, 3, 3, 3, 4, 5, 7, 8, 9]);
}

/// Each row lies in one shard, and all shards together have all of them.
pub async fn every_timer_is_in_one_shard(fixture: Fixture) {
    for n in 0..64 {
        set(&fixture, &format!("k{n}"), fixture.instance(), Due::At(Timestamp(1))).await;
    }
    let mut seen = Vec::new();
    for shard in 0..SHARDS {
        let mut query = fixture.query(RowTable::Timer);
        query.shards = vec![shard];
        let page = fixture.store.due(&query).await.expect("due");
        assert!(page.rows.iter().all(|row| row.shard == shard));
        assert!(page.rows.len() < 32, "shard {shard} has {} of 64", page.rows.len());
        seen.extend(page.rows.into_iter().map(|row| row.gate.id));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 64);
    let mut query = fixture.query(RowTable::Timer);
    query.shards.clear();
    assert_eq!(fixture.store.due(&query).await.expect("due").rows.len(), 0, "a node without shards gets nothing");
}

/// The time until the next one is told, as a hint that is never too long.
pub async fn the_next_one_is_announced(fixture: Fixture) {
    let next = |fixture: &Fixture| {
        let (store, query) = (fixture.store.clone(), fixture.query(RowTable::Timer));
        async move { store.due(&query).await.expect("due").next }
    };
    assert_eq!(next(&fixture).await, None);
    set(&fixture, "k", fixture.instance(), Due::After(HOUR)).await;
    let wait = next(&fixture).await.expect("one is waiting");
    assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
    set(&fixture, "k", fixture.instance(), Due::After(HOUR / 60)).await;
    assert!(next(&fixture).await.expect("one is waiting") <= HOUR / 60);
}

/// Reading a timer changes nothing: it stays until its gate is opened, and is seen by every process.
pub async fn a_timer_stays_until_it_is_handled(fixture: Fixture) {
    set(&fixture, "k", fixture.instance(), Due::At(Timestamp(1))).await;
    let other = fixture.other().await;
    for fixture in [&fixture, &other, &fixture] {
        assert_eq!(fixture.due(RowTable::Timer).await.len(), 1);
    }
    let row = fixture.due(RowTable::Timer).await.remove(0);
    other.apply(other.handled(&row)).await;
    assert_eq!(fixture.due(RowTable::Timer).await.len(), 0);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&row)]).await), "D");
}

/// A timer is cancelled by its id, and only by its own saga; one that was read before can take no effect then.
pub async fn cancel_by_id(fixture: Fixture) {
    let instance = fixture.instance();
    let one = set(&fixture, "k", instance, Due::At(Timestamp(1))).await;
    let two = set(&fixture, "k", instance, Due::After(HOUR)).await;
    let row = fixture.due(RowTable::Timer).await.remove(0);
    for (kind, key, id) in [("shop/other", "k", one), (KIND, "K", one), (KIND, "k", fixture.timer_id())] {
        change(&fixture, cancel(kind, key, id)).await;
    }
    assert_eq!(pending(&fixture).await, [one, two]);
    change(&fixture, cancel(KIND, "k", one)).await;
    assert_eq!(pending(&fixture).await, [two]);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&row)]).await), "D");
    assert_eq!(fixture.due(RowTable::Timer).await.len(), 0);
}

/// Cancelling by type is for one type of one life.
pub async fn cancel_by_type(fixture: Fixture) {
    let (one, two) = (fixture.instance(), fixture.instance());
    let mut kept = Vec::new();
    for _ in 0..2 {
        set(&fixture, "k", one, Due::After(HOUR)).await;
    }
    kept.push(set(&fixture, "k", two, Due::After(HOUR * 2)).await);
    kept.push(set(&fixture, "other", one, Due::After(HOUR * 3)).await);
    let id = fixture.timer_id();
    let mut message = fixture.timeout("k", one);
    message.headers.message_type = "test.reminder".into();
    change(&fixture, TimerChange::Set { id, due: Due::After(HOUR * 4), message }).await;
    kept.push(id);
    assert_eq!(pending(&fixture).await.len(), 5);
    let message_type = "test.timeout".into();
    change(&fixture, TimerChange::CancelType { kind: KIND.into(), key: "k".into(), instance: one, message_type }).await;
    assert_eq!(pending(&fixture).await, kept);
}

/// Changes of one unit apply in their order.
pub async fn set_and_cancel_in_one_unit(fixture: Fixture) {
    let (instance, one, two) = (fixture.instance(), fixture.timer_id(), fixture.timer_id());
    let mut unit = fixture.unit();
    for id in [one, two] {
        unit.timers.push(TimerChange::Set { id, due: Due::After(HOUR), message: fixture.timeout("k", instance) });
    }
    unit.timers.push(cancel(KIND, "k", one));
    fixture.apply(unit).await;
    assert_eq!(pending(&fixture).await, [two]);
    // and of one chain
    let three = fixture.timer_id();
    let mut first = fixture.unit();
    first.timers.push(TimerChange::Set { id: three, due: Due::After(HOUR), message: fixture.timeout("k", instance) });
    let mut second = fixture.unit();
    second.timers.push(cancel(KIND, "k", three));
    assert_eq!(outcome_codes(&fixture.commit(vec![first, second]).await), "AA");
    assert_eq!(pending(&fixture).await, [two]);
}

/// A life that completes takes its timers with it, and no others.
pub async fn completion_takes_its_timers(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let old = fixture.instance();
    for due in [Due::At(Timestamp(1)), Due::After(HOUR)] {
        set(&fixture, "k", instance, due).await;
    }
    let kept =
        [set(&fixture, "other", instance, Due::After(HOUR)).await, set(&fixture, "k", old, Due::After(HOUR * 2)).await];
    assert_eq!(pending(&fixture).await.len(), 4);
    let row = fixture.due(RowTable::Timer).await.remove(0);
    fixture.apply(fixture.writes(complete("k", instance, 1))).await;
    assert_eq!(pending(&fixture).await, kept);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&row)]).await), "D", "a late firing finds nothing");
}

/// The timer that completes its saga is its own gate.
pub async fn a_timer_may_complete_its_saga(fixture: Fixture) {
    let instance = fixture.born("k").await;
    set(&fixture, "k", instance, Due::At(Timestamp(1))).await;
    let row = fixture.due(RowTable::Timer).await.remove(0);
    let mut unit = fixture.handled(&row);
    unit.saga = Some(complete("k", instance, 1));
    fixture.apply(unit.clone()).await;
    assert_eq!((fixture.saga("k").await, fixture.count("timer").await), (None, 0));
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
}

/// A timer that was moved is not opened by an earlier reading; it is due at its new time.
pub async fn a_moved_timer_is_another_delivery(fixture: Fixture) {
    let id = set(&fixture, "k", fixture.instance(), Due::At(Timestamp(1))).await;
    let old = fixture.due(RowTable::Timer).await.remove(0);
    let admin = fixture.store.admin();
    let later = fixture.store.now().await.expect("now").plus(HOUR);
    assert!(admin.move_timer("shop", id, later).await.expect("move"));
    assert_eq!(fixture.due(RowTable::Timer).await.len(), 0);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&old)]).await), "D");
    assert_eq!(pending(&fixture).await, [id]);
    assert!(admin.move_timer("shop", id, Timestamp(2)).await.expect("move"));
    let new = fixture.due(RowTable::Timer).await.remove(0);
    assert_eq!(new.due, Timestamp(2));
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&old)]).await), "D");
    fixture.apply(fixture.handled(&new)).await;
}
