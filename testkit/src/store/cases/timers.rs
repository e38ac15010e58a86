//! Timeouts: never early, never lost, once.

use crate::store::{Bed, KIND, bed::letters, complete};
use sagabus_core::{Due, InstanceId, RowTable, SHARDS, TimerChange, TimerId, Timestamp};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

async fn set(bed: &Bed, key: &str, instance: InstanceId, due: Due) -> TimerId {
    let id = bed.timer_id();
    let mut unit = bed.unit();
    unit.timers.push(TimerChange::Set { id, due, message: bed.timeout(key, instance) });
    bed.apply(unit).await;
    id
}

async fn change(bed: &Bed, change: TimerChange) {
    let mut unit = bed.unit();
    unit.timers.push(change);
    bed.apply(unit).await;
}

async fn pending(bed: &Bed) -> Vec<TimerId> {
    let timers = bed.store.admin().timers("shop", 1000).await.expect("timers");
    timers.into_iter().map(|timer| timer.id).collect()
}

fn cancel(kind: &str, key: &str, id: TimerId) -> TimerChange {
    TimerChange::Cancel { kind: kind.into(), key: key.into(), id }
}

/// A timer is due when its time has passed by the database's clock, and not before.
pub async fn due_in_time_and_never_early(bed: Bed) {
    let delay = Duration::from_millis(150);
    let instance = bed.instance();
    let before = bed.store.now().await.expect("now");
    set(&bed, "k", instance, Due::After(delay)).await;
    assert_eq!(bed.due(RowTable::Timer).await.len(), 0);
    let rows = bed.wait_due(RowTable::Timer).await;
    let after = bed.store.now().await.expect("now");
    assert!(after.since(before) >= delay, "early: {:?}", after.since(before));
    assert!(rows[0].due >= before.plus(delay) && rows[0].due <= after);
    assert_eq!((&*rows[0].handler, rows[0].attempts), ("order", 0));
    let headers = &rows[0].message.headers;
    assert_eq!(headers.saga.as_ref().map(|saga| saga.instance), Some(instance));
}

/// An absolute time likewise; one that is past is due at once.
pub async fn absolute_times(bed: Bed) {
    let now = bed.store.now().await.expect("now");
    let soon = now.plus(Duration::from_millis(150));
    set(&bed, "k", bed.instance(), Due::At(soon)).await;
    set(&bed, "k", bed.instance(), Due::At(now.plus(HOUR))).await;
    let past = bed.timer_id();
    change(&bed, TimerChange::Set { id: past, due: Due::At(Timestamp(1)), message: bed.timeout("k", bed.instance()) })
        .await;
    let rows = bed.due(RowTable::Timer).await;
    assert_eq!(rows.len(), 1, "the past one, and none early");
    bed.apply(bed.handled(&rows[0])).await;
    let rows = bed.wait_due(RowTable::Timer).await;
    assert!(bed.store.now().await.expect("now") >= soon);
    assert_eq!((rows.len(), rows[0].due), (1, soon));
}

/// Timers come in the order of their times, in pages that leave out none.
pub async fn pages_in_order_of_time(bed: Bed) {
    for n in [5, 1, 4, 2, 3, 3, 3, 9, 8, 7] {
        set(&bed, &format!("k{n}"), bed.instance(), Due::At(Timestamp(n * 1000))).await;
    }
    let mut query = bed.query(RowTable::Timer);
    query.limit = 3;
    let mut seen = Vec::new();
    loop {
        let page = bed.store.due(&query).await.expect("due");
        assert!(page.rows.len() <= 3);
        let Some(last) = page.rows.last() else { break };
        query.after = Some((last.due, last.gate.id));
        seen.extend(page.rows.into_iter().map(|row| row.due.0 / 1000));
        assert!(seen.len() <= 10, "a page begins after the one before it");
    }
    assert_eq!(seen, [1, 2, 3, 3, 3, 4, 5, 7, 8, 9]);
}

/// Each row lies in one shard, and all shards together have all of them.
pub async fn every_timer_is_in_one_shard(bed: Bed) {
    for n in 0..64 {
        set(&bed, &format!("k{n}"), bed.instance(), Due::At(Timestamp(1))).await;
    }
    let mut seen = Vec::new();
    for shard in 0..SHARDS {
        let mut query = bed.query(RowTable::Timer);
        query.shards = vec![shard];
        let page = bed.store.due(&query).await.expect("due");
        assert!(page.rows.iter().all(|row| row.shard == shard));
        assert!(page.rows.len() < 32, "shard {shard} has {} of 64", page.rows.len());
        seen.extend(page.rows.into_iter().map(|row| row.gate.id));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 64);
    let mut query = bed.query(RowTable::Timer);
    query.shards.clear();
    assert_eq!(bed.store.due(&query).await.expect("due").rows.len(), 0, "a node without shards gets nothing");
}

/// The time until the next one is told, as a hint that is never too long.
pub async fn the_next_one_is_announced(bed: Bed) {
    let next = |bed: &Bed| {
        let (store, query) = (bed.store.clone(), bed.query(RowTable::Timer));
        async move { store.due(&query).await.expect("due").next }
    };
    assert_eq!(next(&bed).await, None);
    set(&bed, "k", bed.instance(), Due::After(HOUR)).await;
    let wait = next(&bed).await.expect("one is waiting");
    assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
    set(&bed, "k", bed.instance(), Due::After(HOUR / 60)).await;
    assert!(next(&bed).await.expect("one is waiting") <= HOUR / 60);
}

/// Reading a timer changes nothing: it stays until its gate is opened, and is seen by every process.
pub async fn a_timer_stays_until_it_is_handled(bed: Bed) {
    set(&bed, "k", bed.instance(), Due::At(Timestamp(1))).await;
    let other = bed.other().await;
    for bed in [&bed, &other, &bed] {
        assert_eq!(bed.due(RowTable::Timer).await.len(), 1);
    }
    let row = bed.due(RowTable::Timer).await.remove(0);
    other.apply(other.handled(&row)).await;
    assert_eq!(bed.due(RowTable::Timer).await.len(), 0);
    assert_eq!(letters(&bed.commit(vec![bed.handled(&row)]).await), "D");
}

/// A timer is cancelled by its id, and only by its own saga; one that was read before can take no effect then.
pub async fn cancel_by_id(bed: Bed) {
    let instance = bed.instance();
    let one = set(&bed, "k", instance, Due::At(Timestamp(1))).await;
    let two = set(&bed, "k", instance, Due::After(HOUR)).await;
    let row = bed.due(RowTable::Timer).await.remove(0);
    for (kind, key, id) in [("shop/other", "k", one), (KIND, "K", one), (KIND, "k", bed.timer_id())] {
        change(&bed, cancel(kind, key, id)).await;
    }
    assert_eq!(pending(&bed).await, [one, two]);
    change(&bed, cancel(KIND, "k", one)).await;
    assert_eq!(pending(&bed).await, [two]);
    assert_eq!(letters(&bed.commit(vec![bed.handled(&row)]).await), "D");
    assert_eq!(bed.due(RowTable::Timer).await.len(), 0);
}

/// Cancelling by type is for one type of one life.
pub async fn cancel_by_type(bed: Bed) {
    let (one, two) = (bed.instance(), bed.instance());
    let mut kept = Vec::new();
    for _ in 0..2 {
        set(&bed, "k", one, Due::After(HOUR)).await;
    }
    kept.push(set(&bed, "k", two, Due::After(HOUR * 2)).await);
    kept.push(set(&bed, "other", one, Due::After(HOUR * 3)).await);
    let id = bed.timer_id();
    let mut message = bed.timeout("k", one);
    message.headers.message_type = "test.reminder".into();
    change(&bed, TimerChange::Set { id, due: Due::After(HOUR * 4), message }).await;
    kept.push(id);
    assert_eq!(pending(&bed).await.len(), 5);
    let message_type = "test.timeout".into();
    change(&bed, TimerChange::CancelType { kind: KIND.into(), key: "k".into(), instance: one, message_type }).await;
    assert_eq!(pending(&bed).await, kept);
}

/// Changes of one unit apply in their order.
pub async fn set_and_cancel_in_one_unit(bed: Bed) {
    let (instance, one, two) = (bed.instance(), bed.timer_id(), bed.timer_id());
    let mut unit = bed.unit();
    for id in [one, two] {
        unit.timers.push(TimerChange::Set { id, due: Due::After(HOUR), message: bed.timeout("k", instance) });
    }
    unit.timers.push(cancel(KIND, "k", one));
    bed.apply(unit).await;
    assert_eq!(pending(&bed).await, [two]);
    // and of one chain
    let three = bed.timer_id();
    let mut first = bed.unit();
    first.timers.push(TimerChange::Set { id: three, due: Due::After(HOUR), message: bed.timeout("k", instance) });
    let mut second = bed.unit();
    second.timers.push(cancel(KIND, "k", three));
    assert_eq!(letters(&bed.commit(vec![first, second]).await), "AA");
    assert_eq!(pending(&bed).await, [two]);
}

/// A life that completes takes its timers with it, and no others.
pub async fn completion_takes_its_timers(bed: Bed) {
    let instance = bed.born("k").await;
    let old = bed.instance();
    for due in [Due::At(Timestamp(1)), Due::After(HOUR)] {
        set(&bed, "k", instance, due).await;
    }
    let kept = [set(&bed, "other", instance, Due::After(HOUR)).await, set(&bed, "k", old, Due::After(HOUR * 2)).await];
    assert_eq!(pending(&bed).await.len(), 4);
    let row = bed.due(RowTable::Timer).await.remove(0);
    bed.apply(bed.writes(complete("k", instance, 1))).await;
    assert_eq!(pending(&bed).await, kept);
    assert_eq!(letters(&bed.commit(vec![bed.handled(&row)]).await), "D", "a late firing finds nothing");
}

/// The timer that completes its saga is its own gate.
pub async fn a_timer_may_complete_its_saga(bed: Bed) {
    let instance = bed.born("k").await;
    set(&bed, "k", instance, Due::At(Timestamp(1))).await;
    let row = bed.due(RowTable::Timer).await.remove(0);
    let mut unit = bed.handled(&row);
    unit.saga = Some(complete("k", instance, 1));
    bed.apply(unit.clone()).await;
    assert_eq!((bed.saga("k").await, bed.count("timer").await), (None, 0));
    assert_eq!(letters(&bed.commit(vec![unit]).await), "D");
}

/// A timer that was moved is not opened by an earlier reading; it is due at its new time.
pub async fn a_moved_timer_is_another_delivery(bed: Bed) {
    let id = set(&bed, "k", bed.instance(), Due::At(Timestamp(1))).await;
    let old = bed.due(RowTable::Timer).await.remove(0);
    let admin = bed.store.admin();
    let later = bed.store.now().await.expect("now").plus(HOUR);
    assert!(admin.move_timer("shop", id, later).await.expect("move"));
    assert_eq!(bed.due(RowTable::Timer).await.len(), 0);
    assert_eq!(letters(&bed.commit(vec![bed.handled(&old)]).await), "D");
    assert_eq!(pending(&bed).await, [id]);
    assert!(admin.move_timer("shop", id, Timestamp(2)).await.expect("move"));
    let new = bed.due(RowTable::Timer).await.remove(0);
    assert_eq!(new.due, Timestamp(2));
    assert_eq!(letters(&bed.commit(vec![bed.handled(&old)]).await), "D");
    bed.apply(bed.handled(&new)).await;
}
