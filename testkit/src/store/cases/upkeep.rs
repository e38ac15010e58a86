//! Migration, retention, wake-ups, closing.

use crate::store::{
    Bed,
    bed::{buried, deferred, letters, parked_turn},
    create, keep, to_queue,
};
use sagabus_core::{Outcome, RowTable, Timestamp, counted_tables};
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// Migrating again, from several processes at once, changes nothing.
pub async fn migrating_is_idempotent(bed: Bed) {
    bed.born("k").await;
    let others = [bed.other().await, bed.other().await, bed.other().await];
    for result in futures::future::join_all(others.iter().map(|bed| bed.store.migrate())).await {
        result.expect("migrate");
    }
    for other in &others {
        other.store.check().await.expect("check");
        assert_eq!(other.store.database(), bed.store.database());
        assert_eq!(other.version("k").await, Some((1, b"born".to_vec())));
    }
    assert!(bed.store.committers() >= 1);
}

/// What is younger than the horizon is not pruned, however odd its id; then ids are still recognised.
pub async fn nothing_young_is_pruned(bed: Bed) {
    let queued = bed.queues(&["q"]).await.is_some();
    let message = bed.message();
    if queued {
        bed.enqueue("q", message.clone()).await;
    }
    let unit = bed.unit();
    bed.apply(unit.clone()).await;
    bed.apply(bed.writes(keep("k", bed.instance(), 0, HOUR, &b"end"[..]))).await;
    assert_eq!(bed.store.count_attempt("shop", "order", unit.message_id).await.expect("count"), 1);
    let before = bed.store.admin().counts().await.expect("counts");
    assert_eq!(bed.store.prune(HOUR).await.expect("prune"), 0);
    assert_eq!(bed.store.admin().counts().await.expect("counts"), before);
    assert_eq!(letters(&bed.commit(vec![unit]).await), "D");
    if queued {
        bed.enqueue("q", message).await;
        assert_eq!(bed.queue("q").await.len(), 1);
    }
}

/// Retention never touches live sagas, unsent and waiting messages, timers and dead letters, however old.
pub async fn nothing_unfinished_is_pruned(bed: Bed) {
    let queued = bed.queues(&["q"]).await.is_some();
    bed.born("k").await;
    if queued {
        bed.enqueue("q", bed.message()).await;
    }
    let message = Arc::new(bed.message());
    for disposition in [deferred(&message, None, HOUR), parked_turn(&message, "k"), buried(&message, "x")] {
        let message = Arc::new(bed.message());
        let mut unit = bed.disposed(&message, disposition);
        unit.timers.push(bed.past_timer("k"));
        unit.sends.push(to_queue("q", bed.message()));
        bed.split_one(unit).await;
    }
    let counts = |bed: &Bed| {
        let admin = bed.store.admin();
        async move {
            let mut counts = admin.counts().await.expect("counts");
            counts.retain(|name, _| {
                ["saga", "outbox", "queue", "timer", "retry", "parked", "dead_letter"].contains(&name.as_str())
            });
            counts
        }
    };
    let before = counts(&bed).await;
    assert_eq!(before.values().filter(|count| **count > 0).count(), before.len() - usize::from(!queued));
    bed.store.prune(Duration::ZERO).await.expect("prune");
    assert_eq!(counts(&bed).await, before);
}

/// A completed saga that was kept goes when its time is up; and then only it.
pub async fn kept_sagas_go_in_time(bed: Bed) {
    bed.born("live").await;
    bed.apply(bed.writes(keep("long", bed.instance(), 0, HOUR, &b"end"[..]))).await;
    bed.apply(bed.writes(keep("short", bed.instance(), 0, Duration::from_millis(50), &b"end"[..]))).await;
    assert_eq!(bed.count("saga").await, 3);
    bed.until("the kept saga is pruned", || async {
        bed.store.prune(HOUR).await.expect("prune");
        (bed.count("saga").await == 2).then_some(())
    })
    .await;
    assert!(bed.saga("live").await.is_some() && bed.saga("long").await.is_some());
    assert_eq!(bed.saga("short").await, None);
}

/// Ids that say nothing of their age are forgotten once their arrival is past the horizon; a backlog older than the
/// horizon is handled normally then.
pub async fn foreign_ids_are_forgotten_in_time(bed: Bed) {
    let id = sagabus_core::MessageId::from_foreign("order-1");
    let unit = bed.unit_of("order", id, sagabus_core::Gate::Inbox);
    bed.apply(unit.clone()).await;
    assert_eq!(bed.count("inbox_misc").await, 1);
    bed.until("the id is forgotten", || async {
        bed.store.prune(Duration::from_millis(20)).await.expect("prune");
        (!bed.probe(id).await).then_some(())
    })
    .await;
    assert_eq!(bed.count("inbox_misc").await, 0);
    bed.apply(unit).await;
}

/// Every table is counted.
pub async fn every_table_is_counted(bed: Bed) {
    let counts = bed.store.admin().counts().await.expect("counts");
    for table in counted_tables() {
        assert_eq!(counts.get(table), Some(&0), "{table}");
    }
    bed.born("k").await;
    assert_eq!((bed.count("saga").await, bed.inbox().await), (1, 1));
}

/// Who waits for due rows is woken when one may be due sooner, or looks again when the time is up.
pub async fn waiting_for_due_rows_ends(bed: Bed) {
    bed.store.wait_due("shop", Duration::from_millis(30)).await;
    let start = bed.runtime.elapsed();
    let long = Duration::from_secs(8);
    futures::join!(bed.store.wait_due("shop", long), async {
        bed.runtime.sleep(Duration::from_millis(30)).await;
        let mut unit = bed.unit();
        unit.timers.push(bed.past_timer("k"));
        bed.apply(unit).await;
    });
    assert!(bed.runtime.elapsed() - start < long / 2, "a timer of this process wakes at once");
}

/// The database's clock goes on, and is one clock for all handles.
pub async fn one_clock(bed: Bed) {
    let other = bed.other().await;
    let mut last = Timestamp(0);
    for bed in [&bed, &other, &bed, &other] {
        let now = bed.store.now().await.expect("now");
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
        bed.runtime.sleep(Duration::from_millis(2)).await;
    }
    assert!(last > Timestamp(1_600_000_000_000_000), "microseconds since 1970");
}

/// A closed handle refuses, and commits nothing; other handles go on.
pub async fn a_closed_store_refuses(bed: Bed) {
    let other = bed.other().await;
    bed.born("k").await;
    bed.store.close().await;
    bed.store.close().await;
    let unit = bed.unit();
    let outcome = bed.store.commit(bed.batch(false, vec![unit.clone()])).await.outcomes.remove(0);
    assert!(matches!(&outcome, Outcome::Failed(error) if error.is_closed()), "{outcome:?}");
    let request = sagabus_core::LoadRequest { endpoint: "shop".into(), ..Default::default() };
    assert!(bed.store.load(request).await.expect_err("closed").is_closed());
    assert!(bed.store.due(&bed.query(RowTable::Timer)).await.expect_err("closed").is_closed());
    assert!(bed.store.begin().await.err().is_some_and(|error| error.is_closed() || error.is_unsupported()));
    assert!(!other.probe(unit.message_id).await);
    assert_eq!(other.version("k").await, Some((1, b"born".to_vec())));
    other.apply(other.writes(create("k2", other.instance(), &b"x"[..]))).await;
}

/// A dropped future is unknown: calls that are given up half way leave a store that works, and units that are whole.
pub async fn dropped_calls_leave_a_sound_store(bed: Bed) {
    let mut units = Vec::new();
    for n in 0..40_u64 {
        let limit = Duration::from_micros(n * 25);
        let mut unit = bed.writes(create(&format!("k{n}"), bed.instance(), &b"x"[..]));
        unit.sends.push(to_queue("q", bed.message()));
        units.push(unit.clone());
        let _ = bed.runtime.timeout(limit, bed.store.commit(bed.batch(false, vec![unit]))).await;
        let _ = bed.runtime.timeout(limit, bed.store.begin()).await;
        let _ = bed.runtime.timeout(limit, bed.store.count_attempt("shop", "order", bed.id())).await;
        let _ = bed.runtime.timeout(limit, bed.store.due(&bed.query(RowTable::Timer))).await;
        if bed.harness.own_sql() {
            let mut unit = bed.unit();
            unit.sends.push(to_queue("q", bed.message()));
            let transaction = bed.store.begin().await.expect("begin after dropped calls");
            let reply = bed.runtime.timeout(limit, transaction.finish(bed.batch(false, vec![unit.clone()]))).await;
            if let Some(reply) = reply {
                assert!(reply.outcomes[0].is_applied(), "{reply:?}");
            }
            units.push(unit);
        }
    }
    // the gate tells; whoever asks again gets exactly one of each
    for unit in &units {
        let outcomes = letters(&bed.split(vec![unit.clone()]).await.outcomes);
        assert!(outcomes == "A" || outcomes == "D", "{outcomes}");
    }
    let count = units.len() as u64;
    assert_eq!((bed.inbox().await, bed.count("outbox").await, bed.count("saga").await), (count, count, 40));
}
