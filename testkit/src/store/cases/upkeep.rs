//! Migration, retention, wake-ups, closing.

use crate::store::{
    Fixture, create,
    fixture::{buried, deferred, outcome_codes, parked_turn},
    keep, to_queue,
};
use sagabus_core::{Outcome, RowTable, Timestamp, counted_tables};
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// Migrating again, from several processes at once, changes nothing.
pub async fn migrating_is_idempotent(fixture: Fixture) {
    fixture.born("k").await;
    let others = [fixture.other().await, fixture.other().await, fixture.other().await];
    for result in futures::future::join_all(others.iter().map(|fixture| fixture.store.migrate())).await {
        result.expect("migrate");
    }
    for other in &others {
        other.store.check().await.expect("check");
        assert_eq!(other.store.database(), fixture.store.database());
        assert_eq!(other.version("k").await, Some((1, b"born".to_vec())));
    }
    assert!(fixture.store.committers() >= 1);
}

/// What is younger than the horizon is not pruned, however odd its id; then ids are still recognised.
pub async fn nothing_young_is_pruned(fixture: Fixture) {
    let queued = fixture.queues(&["q"]).await.is_some();
    let message = fixture.message();
    if queued {
        fixture.enqueue("q", message.clone()).await;
    }
    let unit = fixture.unit();
    fixture.apply(unit.clone()).await;
    fixture.apply(fixture.writes(keep("k", fixture.instance(), 0, HOUR, &b"end"[..]))).await;
    assert_eq!(fixture.store.count_attempt("shop", "order", unit.message_id).await.expect("count"), 1);
    let before = fixture.store.admin().counts().await.expect("counts");
    assert_eq!(fixture.store.prune(HOUR).await.expect("prune"), 0);
    assert_eq!(fixture.store.admin().counts().await.expect("counts"), before);
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
    if queued {
        fixture.enqueue("q", message).await;
        assert_eq!(fixture.queue("q").await.len(), 1);
    }
}

/// Retention never touches live sagas, unsent and waiting messages, timers and dead letters, however old.
pub async fn nothing_unfinished_is_pruned(fixture: Fixture) {
    let queued = fixture.queues(&["q"]).await.is_some();
    fixture.born("k").await;
    if queued {
        fixture.enqueue("q", fixture.message()).await;
    }
    let message = Arc::new(fixture.message());
    for disposition in [deferred(&message, None, HOUR), parked_turn(&message, "k"), buried(&message, "x")] {
        let message = Arc::new(fixture.message());
        let mut unit = fixture.disposed(&message, disposition);
        unit.timers.push(fixture.past_timer("k"));
        unit.sends.push(to_queue("q", fixture.message()));
        fixture.split_one(unit).await;
    }
    let counts = |fixture: &Fixture| {
        let admin = fixture.store.admin();
        async move {
            let mut counts = admin.counts().await.expect("counts");
            counts.retain(|name, _| {
                ["saga", "outbox", "queue", "timer", "retry", "parked", "dead_letter"].contains(&name.as_str())
            });
            counts
        }
    };
    let before = counts(&fixture).await;
    assert_eq!(before.values().filter(|count| **count > 0).count(), before.len() - usize::from(!queued));
    fixture.store.prune(Duration::ZERO).await.expect("prune");
    assert_eq!(counts(&fixture).await, before);
}

/// A completed saga that was kept goes when its time is up; and then only it.
pub async fn kept_sagas_go_in_time(fixture: Fixture) {
    fixture.born("live").await;
    fixture.apply(fixture.writes(keep("long", fixture.instance(), 0, HOUR, &b"end"[..]))).await;
    fixture.apply(fixture.writes(keep("short", fixture.instance(), 0, Duration::from_millis(50), &b"end"[..]))).await;
    assert_eq!(fixture.count("saga").await, 3);
    fixture
        .until("the kept saga is pruned", || async {
            fixture.store.prune(HOUR).await.expect("prune");
            (fixture.count("saga").await == 2).then_some(())
        })
        .await;
    assert!(fixture.saga("live").await.is_some() && fixture.saga("long").await.is_some());
    assert_eq!(fixture.saga("short").await, None);
}

/// Ids that say nothing of their age are forgotten once their arrival is past the horizon; a backlog older than the
/// horizon is handled normally then.
pub async fn foreign_ids_are_forgotten_in_time(fixture: Fixture) {
    let id = sagabus_core::MessageId::from_foreign("order-1");
    let unit = fixture.unit_of("order", id, sagabus_core::Gate::Inbox);
    fixture.apply(unit.clone()).await;
    assert_eq!(fixture.count("inbox_misc").await, 1);
    fixture
        .until("the id is forgotten", || async {
            fixture.store.prune(Duration::from_millis(20)).await.expect("prune");
            (!fixture.probe(id).await).then_some(())
        })
        .await;
    assert_eq!(fixture.count("inbox_misc").await, 0);
    fixture.apply(unit).await;
}

/// Every table is counted.
pub async fn every_table_is_counted(fixture: Fixture) {
    let counts = fixture.store.admin().counts().await.expect("counts");
    for table in counted_tables() {
        assert_eq!(counts.get(table), Some(&0), "{table}");
    }
    fixture.born("k").await;
    assert_eq!((fixture.count("saga").await, fixture.inbox().await), (1, 1));
}

/// Who waits for due rows is woken when one may be due sooner, or looks again when the time is up.
pub async fn waiting_for_due_rows_ends(fixture: Fixture) {
    fixture.store.wait_due("shop", Duration::from_millis(30)).await;
    let start = fixture.runtime.elapsed();
    let long = Duration::from_secs(8);
    futures::join!(fixture.store.wait_due("shop", long), async {
        fixture.runtime.sleep(Duration::from_millis(30)).await;
        let mut unit = fixture.unit();
        unit.timers.push(fixture.past_timer("k"));
        fixture.apply(unit).await;
    });
    assert!(fixture.runtime.elapsed() - start < long / 2, "a timer of this process wakes at once");
}

/// The database's clock goes on, and is one clock for all handles.
pub async fn one_clock(fixture: Fixture) {
    let other = fixture.other().await;
    let mut last = Timestamp(0);
    for fixture in [&fixture, &other, &fixture, &other] {
        let now = fixture.store.now().await.expect("now");
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
        fixture.runtime.sleep(Duration::from_millis(2)).await;
    }
    assert!(last > Timestamp(1_600_000_000_000_000), "microseconds since 1970");
}

/// A closed handle refuses, and commits nothing; other handles go on.
pub async fn a_closed_store_refuses(fixture: Fixture) {
    let other = fixture.other().await;
    fixture.born("k").await;
    fixture.store.close().await;
    fixture.store.close().await;
    let unit = fixture.unit();
    let outcome = fixture.store.commit(fixture.batch(false, vec![unit.clone()])).await.outcomes.remove(0);
    assert!(matches!(&outcome, Outcome::Failed(error) if error.is_closed()), "{outcome:?}");
    let request = sagabus_core::LoadRequest { endpoint: "shop".into(), ..Default::default() };
    assert!(fixture.store.load(request).await.expect_err("closed").is_closed());
    assert!(fixture.store.due(&fixture.query(RowTable::Timer)).await.expect_err("closed").is_closed());
    assert!(fixture.store.begin().await.err().is_some_and(|error| error.is_closed() || error.is_unsupported()));
    assert!(!other.probe(unit.message_id).await);
    assert_eq!(other.version("k").await, Some((1, b"born".to_vec())));
    other.apply(other.writes(create("k2", other.instance(), &b"x"[..]))).await;
}

/// A dropped future is unknown: calls that are given up half way leave a store that works, and units that are whole.
pub async fn dropped_calls_leave_a_sound_store(fixture: Fixture) {
    let mut units = Vec::new();
    for n in 0..40_u64 {
        let limit = Duration::from_micros(n * 25);
        let mut unit = fixture.writes(create(&format!("k{n}"), fixture.instance(), &b"x"[..]));
        unit.sends.push(to_queue("q", fixture.message()));
        units.push(unit.clone());
        let _ = fixture.runtime.timeout(limit, fixture.store.commit(fixture.batch(false, vec![unit]))).await;
        let _ = fixture.runtime.timeout(limit, fixture.store.begin()).await;
        let _ = fixture.runtime.timeout(limit, fixture.store.count_attempt("shop", "order", fixture.id())).await;
        let _ = fixture.runtime.timeout(limit, fixture.store.due(&fixture.query(RowTable::Timer))).await;
        if fixture.harness.own_sql() {
            let mut unit = fixture.unit();
            unit.sends.push(to_queue("q", fixture.message()));
            let transaction = fixture.store.begin().await.expect("begin after dropped calls");
            let reply =
                fixture.runtime.timeout(limit, transaction.finish(fixture.batch(false, vec![unit.clone()]))).await;
            if let Some(reply) = reply {
                assert!(reply.outcomes[0].is_applied(), "{reply:?}");
            }
            units.push(unit);
        }
    }
    // the gate tells; whoever asks again gets exactly one of each
    for unit in &units {
        let outcomes = outcome_codes(&fixture.split(vec![unit.clone()]).await.outcomes);
        assert!(outcomes == "A" || outcomes == "D", "{outcomes}");
    }
    let count = units.len() as u64;
    assert_eq!((fixture.inbox().await, fixture.count("outbox").await, fixture.count("saga").await), (count, count, 40));
}
