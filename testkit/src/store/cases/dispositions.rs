//! What became of a message is recorded with its gate: a redelivery never runs beside its own copy.

use crate::store::{
    Fixture,
    fixture::{buried, deferred, outcome_codes, parked_saga, parked_turn},
};
use sagabus_core::{Disposition, Envelope, RowTable, Timestamp, UserHeader};
use std::{sync::Arc, time::Duration};

/// Applies, and is recognised when the message comes again.
async fn once(fixture: &Fixture, message: &Arc<Envelope>, disposition: Disposition) {
    let unit = fixture.disposed(message, disposition);
    fixture.apply(unit.clone()).await;
    assert!(fixture.probe(message.headers.message_id).await);
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
}

/// A deferred message is a row of its own, with its attempts.
pub async fn deferred_is_a_retry_row(fixture: Fixture) {
    let message = Arc::new(fixture.message());
    once(&fixture, &message, deferred(&message, None, Duration::ZERO)).await;
    let rows = fixture.wait_due(RowTable::Retry).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((&*rows[0].handler, rows[0].attempts, &rows[0].key), ("order", 3, &None));
    assert_eq!(rows[0].message, *message);
}

/// A retry that is deferred again is replaced by its next row.
pub async fn deferred_again_replaces_the_row(fixture: Fixture) {
    let mut row = fixture.row(RowTable::Retry).await;
    for _ in 0..3 {
        let message = Arc::new(row.message.clone());
        let mut unit = fixture.handled(&row);
        unit.disposition = deferred(&message, Some("key"), Duration::ZERO);
        fixture.apply(unit.clone()).await;
        assert_eq!(fixture.count("retry").await, 1);
        assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
        let next = fixture.wait_due(RowTable::Retry).await.remove(0);
        assert_ne!(next.gate, row.gate);
        assert_eq!(next.key.as_deref(), Some("key"));
        row = next;
    }
    fixture.apply(fixture.handled(&row)).await;
    assert_eq!(fixture.count("retry").await, 0);
}

/// A retry is not due before its delay has passed.
pub async fn deferred_waits_its_delay(fixture: Fixture) {
    let delay = Duration::from_millis(150);
    let message = Arc::new(fixture.message());
    let before = fixture.store.now().await.expect("now");
    fixture.apply(fixture.disposed(&message, deferred(&message, None, delay))).await;
    let rows = fixture.wait_due(RowTable::Retry).await;
    let after = fixture.store.now().await.expect("now");
    assert!(after.since(before) >= delay, "due after {:?}", after.since(before));
    assert!(rows[0].due >= before.plus(delay) && rows[0].due <= after);
}

/// A dead letter keeps the message, the reason, the chain of errors and the attempts.
pub async fn dead_is_a_dead_letter(fixture: Fixture) {
    let message = Arc::new(fixture.message());
    let before = fixture.store.now().await.expect("now");
    once(&fixture, &message, buried(&message, "handler failed")).await;
    let dead = fixture.dead().await;
    assert_eq!(dead.len(), 1);
    let letter = &dead[0];
    assert_eq!((letter.handler.as_str(), letter.attempts, letter.retrying), ("order", 4, false));
    assert_eq!((letter.reason.as_str(), &letter.detail), ("handler failed", &vec!["outer".into(), "inner".into()]));
    assert_eq!(letter.message, *message);
    assert!(letter.at >= before && letter.at <= fixture.store.now().await.expect("now"));
    assert_eq!(fixture.due(RowTable::DeadLetter).await.len(), 0, "it waits for an operator");
}

/// A parked message is kept.
pub async fn parked_is_a_parked_row(fixture: Fixture) {
    let message = Arc::new(fixture.message());
    once(&fixture, &message, parked_saga(&message, "k", Duration::from_secs(300))).await;
    assert_eq!((fixture.count("parked").await, fixture.due(RowTable::Parked).await.len()), (1, 0));
    let message = Arc::new(fixture.message());
    once(&fixture, &message, parked_turn(&message, "k")).await;
    assert_eq!((fixture.count("parked").await, fixture.due(RowTable::Parked).await.len()), (2, 1));
}

/// A dropped message is recognised, and leaves nothing else.
pub async fn dropped_leaves_its_gate_only(fixture: Fixture) {
    let message = Arc::new(fixture.message());
    once(&fixture, &message, Disposition::Dropped { policy: "expired" }).await;
    for table in RowTable::DUE {
        assert_eq!(fixture.count(table.name()).await, 0, "{table:?}");
    }
    assert_eq!((fixture.inbox().await, fixture.count("outbox").await), (1, 0));
}

/// What another unit of the batch became does not matter; and a stale unit's disposition is not recorded.
pub async fn a_stale_disposition_is_not_recorded(fixture: Fixture) {
    let message = Arc::new(fixture.message());
    let mut unit = fixture.disposed(&message, buried(&message, "never"));
    unit.saga = Some(crate::store::update("none", fixture.instance(), 1, &b"x"[..]));
    let other = Arc::new(fixture.message());
    let units = vec![unit, fixture.disposed(&other, buried(&other, "yes"))];
    assert_eq!(outcome_codes(&fixture.commit(units).await), "SA");
    assert_eq!(fixture.dead().await.iter().map(|dead| dead.reason.clone()).collect::<Vec<_>>(), ["yes"]);
}

/// Headers and body come back as they went in, through every table.
pub async fn messages_survive_every_table(fixture: Fixture) {
    let mut message = fixture.message();
    let headers = &mut message.headers;
    headers.user.insert("tenant".into(), UserHeader { value: "ü 'q' \"d\" \\ \n \u{1f980}".into(), propagate: true });
    headers.user.insert("empty".into(), UserHeader { value: String::new(), propagate: false });
    headers.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    headers.correlation_id = Some("cörr".into());
    headers.reply_to = Some("reply:1".into());
    headers.expires_at = Some(Timestamp(i64::MAX));
    headers.causation_id = Some(fixture.id());
    headers.attempts = 7;
    headers.first_attempt = true;
    headers.content_type = "application/x-other".into();
    for body in [Vec::new(), vec![0, 255, 39, 34, 92, 0], vec![7; 300_000], "{\"ü\":\"\\u0000\"}".into()] {
        message.body = body.into();
        for table in [RowTable::Retry, RowTable::Parked, RowTable::DeadLetter] {
            message.headers.message_id = fixture.id();
            let message = Arc::new(message.clone());
            let disposition = match table {
                RowTable::Retry => deferred(&message, None, Duration::ZERO),
                RowTable::Parked => parked_turn(&message, &message.headers.message_id.to_string()),
                _ => buried(&message, "x"),
            };
            fixture.apply(fixture.disposed(&message, disposition)).await;
            if table == RowTable::DeadLetter {
                let dead = fixture.dead().await.pop().expect("a dead letter");
                assert_eq!(dead.message, *message);
                fixture.store.admin().retry_dead_letters("shop", &[dead.id]).await.expect("retry");
            }
            let row = fixture.wait_due(table).await.remove(0);
            assert_eq!(row.message, *message, "{table:?}");
            fixture.apply(fixture.handled(&row)).await;
        }
    }
}

/// A message is handled or a dead letter, never both: a dead letter that is handled is gone.
pub async fn a_handled_dead_letter_is_gone(fixture: Fixture) {
    let row = fixture.row(RowTable::DeadLetter).await;
    assert!(fixture.dead().await[0].retrying);
    let message = Arc::new(row.message.clone());
    let mut unit = fixture.handled(&row);
    unit.disposition = buried(&message, "again");
    fixture.apply(unit).await;
    let dead = fixture.dead().await;
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].retrying), (1, "again", false));
    fixture.store.admin().retry_dead_letters("shop", &[dead[0].id]).await.expect("retry");
    let row = fixture.wait_due(RowTable::DeadLetter).await.remove(0);
    fixture.apply(fixture.handled(&row)).await;
    assert_eq!(fixture.dead().await.len(), 0);
}
