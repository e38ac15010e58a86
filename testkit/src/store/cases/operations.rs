//! What an operator does: dead letters, timers, looking into sagas.

use crate::store::{
    Fixture, KIND, complete, create,
    fixture::{buried, outcome_codes},
};
use sagabus_core::{Due, RowTable, TimerChange, Timestamp};
use std::{sync::Arc, time::Duration};

async fn bury(fixture: &Fixture, reason: &str) -> i64 {
    let message = Arc::new(fixture.message());
    fixture.apply(fixture.disposed(&message, buried(&message, reason))).await;
    fixture.dead().await.last().expect("a dead letter").id
}

/// Dead letters are listed per endpoint, oldest first, in pages.
pub async fn dead_letters_are_listed(fixture: Fixture) {
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(bury(&fixture, &n.to_string()).await);
    }
    let billing = fixture.endpoint("billing");
    bury(&billing, "theirs").await;
    let admin = fixture.store.admin();
    let page = admin.dead_letters("shop", 0, 3).await.expect("a page");
    let rest = admin.dead_letters("shop", page[2].id, 3).await.expect("the rest");
    let all: Vec<_> = page.iter().chain(&rest).map(|dead| (dead.id, dead.reason.clone())).collect();
    assert_eq!(all, ids.iter().enumerate().map(|(n, id)| (*id, n.to_string())).collect::<Vec<_>>());
    assert_eq!(billing.dead().await.len(), 1);
}

/// A dead letter that is sent again becomes due once, however often it is asked for, and is handled once.
pub async fn a_retry_is_one_delivery(fixture: Fixture) {
    let id = bury(&fixture, "x").await;
    bury(&fixture, "y").await;
    let admin = fixture.store.admin();
    assert_eq!(admin.retry_dead_letters("shop", &[id, 1 << 40]).await.expect("retry"), 1);
    let row = fixture.wait_due(RowTable::DeadLetter).await.remove(0);
    assert_eq!(admin.retry_dead_letters("shop", &[id]).await.expect("retry"), 0, "it is on its way");
    let again = fixture.due(RowTable::DeadLetter).await;
    assert_eq!((again.len(), again[0].gate, &*again[0].handler), (1, row.gate, "order"));
    let listed = fixture.dead().await;
    assert_eq!(listed.iter().map(|dead| dead.retrying).collect::<Vec<_>>(), [true, false]);
    fixture.apply(fixture.handled(&row)).await;
    assert_eq!(admin.retry_dead_letters("shop", &[id]).await.expect("retry"), 0);
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(&row)]).await), "D");
    assert_eq!(fixture.dead().await.len(), 1);
}

/// A discarded one is gone, and only it; another endpoint's is out of reach.
pub async fn discarding_is_for_good(fixture: Fixture) {
    let (one, two) = (bury(&fixture, "one").await, bury(&fixture, "two").await);
    let admin = fixture.store.admin();
    assert_eq!(admin.discard_dead_letters("billing", &[one, two]).await.expect("discard"), 0);
    assert_eq!(admin.retry_dead_letters("billing", &[one, two]).await.expect("retry"), 0);
    assert_eq!(admin.discard_dead_letters("shop", &[one, 1 << 40]).await.expect("discard"), 1);
    assert_eq!(admin.discard_dead_letters("shop", &[one]).await.expect("discard"), 0);
    assert_eq!(fixture.dead().await.iter().map(|dead| dead.id).collect::<Vec<_>>(), [two]);
}

/// Pending timers are listed by time, whether due or not.
pub async fn timers_are_listed(fixture: Fixture) {
    let now = fixture.store.now().await.expect("now");
    let instance = fixture.instance();
    let mut set = Vec::new();
    for due in [now.plus(Duration::from_secs(60)), Timestamp(1), now.plus(Duration::from_secs(30))] {
        let id = fixture.timer_id();
        let message = fixture.timeout("k", instance);
        set.push((due, id, message.headers.message_id));
        let mut unit = fixture.unit();
        unit.timers.push(TimerChange::Set { id, due: Due::At(due), message });
        fixture.apply(unit).await;
    }
    set.sort();
    let admin = fixture.store.admin();
    let listed = admin.timers("shop", None, 10).await.expect("timers");
    assert_eq!(listed.iter().map(|timer| (timer.due, timer.id, timer.message_id)).collect::<Vec<_>>(), set);
    assert!(listed.iter().all(|timer| timer.message_type == "test.timeout"));
    assert!(listed.iter().all(|timer| timer.saga == Some(crate::store::address("k", instance))));
    let page = admin.timers("shop", None, 2).await.expect("timers");
    assert_eq!(page, listed[..2]);
    let next = admin.timers("shop", page.last().map(|timer| (timer.due, timer.row)), 2).await.expect("timers");
    assert_eq!(next, listed[2..]);
    assert_eq!(admin.timers("billing", None, 10).await.expect("timers").len(), 0);
}

/// An operator cancels a timer; one that was read before takes no effect then.
pub async fn a_timer_is_cancelled(fixture: Fixture) {
    let id = fixture.timer_id();
    let mut unit = fixture.unit();
    unit.timers.push(TimerChange::Set {
        id,
        due: Due::At(Timestamp(1)),
        message: fixture.timeout("k", fixture.instance()),
    });
    unit.timers.push(fixture.past_timer("other"));
    fixture.apply(unit).await;
    let rows = fixture.due(RowTable::Timer).await;
    let row = rows.iter().find(|row| row.message.headers.saga.as_ref().is_some_and(|saga| saga.key == "k"));
    let admin = fixture.store.admin();
    assert!(!admin.cancel_timer("billing", id).await.expect("cancel"));
    assert!(!admin.cancel_timer("shop", fixture.timer_id()).await.expect("cancel"));
    assert!(admin.cancel_timer("shop", id).await.expect("cancel"));
    assert!(!admin.cancel_timer("shop", id).await.expect("cancel"));
    assert!(!admin.move_timer("shop", id, Timestamp(5)).await.expect("move"));
    assert_eq!(outcome_codes(&fixture.commit(vec![fixture.handled(row.expect("it was due"))]).await), "D");
    assert_eq!(fixture.count("timer").await, 1);
}

/// d: sagas are looked at by key, and their keys listed in order, in pages.
pub async fn sagas_are_listed(fixture: Fixture) {
    for key in ["b", "a", "ä", "c", "B", "d"] {
        fixture.born(key).await;
    }
    let mut other = create("z", fixture.instance(), &b"x"[..]);
    other.kind = "shop/other".into();
    fixture.apply(fixture.writes(other)).await;
    let admin = fixture.store.admin();
    let mut keys = admin.saga_keys(KIND, "", 4).await.expect("keys");
    assert_eq!(keys, ["B", "a", "b", "c"]);
    keys.extend(admin.saga_keys(KIND, "c", 4).await.expect("keys"));
    assert_eq!(keys, ["B", "a", "b", "c", "d", "ä"], "byte order");
    assert_eq!(admin.saga(KIND, "a").await.expect("saga"), fixture.saga("a").await);
    assert_eq!(admin.saga(KIND, "z").await.expect("saga"), None);
    let instance = fixture.saga("a").await.expect("a").instance;
    fixture.apply(fixture.writes(complete("a", instance, 1))).await;
    assert_eq!(admin.saga_keys(KIND, "", 2).await.expect("keys"), ["B", "b"]);
}
