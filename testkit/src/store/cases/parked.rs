//! Messages that wait: for a saga, for their turn, for another try.

use crate::store::{
    Fixture, complete, create,
    fixture::{buried, deferred, outcome_codes, parked_saga, parked_turn},
};
use sagabus_core::{DueRow, Envelope, RowTable, alias_key};
use std::{sync::Arc, time::Duration};

const LONG: Duration = Duration::from_secs(3600);

async fn park(fixture: &Fixture, key: &str, at_most: Duration) -> Arc<Envelope> {
    let message = Arc::new(fixture.message());
    fixture.apply(fixture.disposed(&message, parked_saga(&message, key, at_most))).await;
    message
}

async fn defer(fixture: &Fixture, key: &str, delay: Duration) -> Arc<Envelope> {
    let message = Arc::new(fixture.keyed(key));
    fixture.apply(fixture.disposed(&message, deferred(&message, Some(key), delay))).await;
    message
}

async fn queue_up(fixture: &Fixture, key: &str) -> Arc<Envelope> {
    let message = Arc::new(fixture.keyed(key));
    fixture.apply(fixture.disposed(&message, parked_turn(&message, key))).await;
    message
}

fn ids(rows: &[DueRow]) -> Vec<sagabus_core::MessageId> {
    rows.iter().map(|row| row.message.headers.message_id).collect()
}

/// The transaction that creates a saga makes what was parked for it due, in order, and nothing else.
pub async fn park_then_create(fixture: Fixture) {
    let first = park(&fixture, "k", LONG).await;
    let second = park(&fixture, "k", LONG).await;
    park(&fixture, "other", LONG).await;
    let mut other = create("k", fixture.instance(), &b"x"[..]);
    other.kind = "shop/other".into();
    fixture.apply(fixture.writes(other)).await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0, "another kind");
    fixture.born("k").await;
    let rows = fixture.wait_due(RowTable::Parked).await;
    assert_eq!(ids(&rows), [first.headers.message_id, second.headers.message_id]);
    assert_eq!((&*rows[0].handler, &rows[0].key), ("order", &None));
    for row in &rows {
        fixture.apply(fixture.handled(row)).await;
    }
    assert_eq!(fixture.count("parked").await, 1);
}

/// The other order: the saga exists by the time the message is parked, so it is due at once.
pub async fn create_then_park(fixture: Fixture) {
    fixture.born("k").await;
    let message = park(&fixture, "k", LONG).await;
    assert_eq!(ids(&fixture.wait_due(RowTable::Parked).await), [message.headers.message_id]);
}

/// Both at the same time, and in one batch: never forgotten.
pub async fn park_and_create_race(fixture: Fixture) {
    let other = fixture.other().await;
    for round in 0..10 {
        let key = format!("k{round}");
        let message = Arc::new(fixture.message());
        let park = fixture.disposed(&message, parked_saga(&message, &key, LONG));
        let create = other.writes(create(&key, fixture.instance(), &b"x"[..]));
        if round < 8 {
            let (one, two) = futures::join!(fixture.commit_one(park), other.commit_one(create));
            assert!(one.is_applied() && two.is_applied(), "{one:?} {two:?}");
        } else {
            let units = if round == 8 { vec![park, create] } else { vec![create, park] };
            assert_eq!(outcome_codes(&fixture.commit(units).await), "AA");
        }
        let rows = fixture.wait_due(RowTable::Parked).await;
        assert_eq!(ids(&rows), [message.headers.message_id]);
        fixture.apply(fixture.handled(&rows[0])).await;
    }
}

/// Nobody creates the saga: the message is due when its time is up, and not before.
pub async fn parked_for_so_long_at_most(fixture: Fixture) {
    let wait = Duration::from_millis(150);
    let before = fixture.store.now().await.expect("now");
    let message = park(&fixture, "k", wait).await;
    let rows = fixture.wait_due(RowTable::Parked).await;
    assert!(fixture.store.now().await.expect("now").since(before) >= wait);
    assert_eq!(ids(&rows), [message.headers.message_id]);
}

/// A message that looks for its saga by an alias is due when the alias is added, or at once if it exists.
pub async fn parked_for_an_alias(fixture: Fixture) {
    let key = alias_key("invoice", "i1");
    let first = park(&fixture, &key, LONG).await;
    fixture.born("i1").await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0);
    let instance = fixture.born("k").await;
    let mut write = crate::store::update("k", instance, 1, &b"x"[..]);
    write.aliases.push(("invoice".into(), "i1".into()));
    fixture.apply(fixture.writes(write)).await;
    let rows = fixture.wait_due(RowTable::Parked).await;
    assert_eq!(ids(&rows), [first.headers.message_id]);
    fixture.apply(fixture.handled(&rows[0])).await;
    let second = park(&fixture, &key, LONG).await;
    assert_eq!(ids(&fixture.wait_due(RowTable::Parked).await), [second.headers.message_id]);
}

/// A saga that is gone adopts nothing; its next life does.
pub async fn a_completed_saga_adopts_nothing(fixture: Fixture) {
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(complete("k", instance, 1))).await;
    let message = park(&fixture, "k", LONG).await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0);
    fixture.born("k").await;
    assert_eq!(ids(&fixture.wait_due(RowTable::Parked).await), [message.headers.message_id]);
}

/// A chain that creates the saga adopts too.
pub async fn a_chain_adopts(fixture: Fixture) {
    park(&fixture, "k", LONG).await;
    let instance = fixture.instance();
    let units = vec![
        fixture.writes(create("k", instance, &b"1"[..])),
        fixture.writes(crate::store::update("k", instance, 1, &b"2"[..])),
        fixture.writes(crate::store::update("k", instance, 2, &b"3"[..])),
    ];
    assert_eq!(outcome_codes(&fixture.commit(units).await), "AAA");
    assert_eq!(fixture.wait_due(RowTable::Parked).await.len(), 1);
}

/// A life that begins and ends in one batch, and an alias that came and went with it, adopt too: whoever waited finds
/// nobody, and hears so at once.
pub async fn a_short_life_adopts(fixture: Fixture) {
    park(&fixture, "k", LONG).await;
    park(&fixture, &alias_key("invoice", "i1"), LONG).await;
    let instance = fixture.instance();
    let mut named = crate::store::update("k", instance, 1, &b"2"[..]);
    named.aliases.push(("invoice".into(), "i1".into()));
    let units = vec![
        fixture.writes(create("k", instance, &b"1"[..])),
        fixture.writes(named),
        fixture.writes(complete("k", instance, 2)),
    ];
    assert_eq!(outcome_codes(&fixture.commit(units).await), "AAA");
    assert_eq!(fixture.wait_due(RowTable::Parked).await.len(), 2);
}

/// While a message of a key is retried, the key is blocked; those parked behind it come one by one, in order.
pub async fn turns_come_in_order(fixture: Fixture) {
    assert!(!fixture.blocked("k").await);
    let first = defer(&fixture, "k", Duration::from_millis(100)).await;
    assert!(fixture.blocked("k").await && fixture.other().await.blocked("k").await);
    let second = queue_up(&fixture, "k").await;
    let third = queue_up(&fixture, "k").await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0, "the first one is still being retried");
    let row = fixture.wait_due(RowTable::Retry).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&row)), [first.headers.message_id]);
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0, "due is not done");
    fixture.apply(fixture.handled(&row)).await;
    for message in [second, third] {
        let rows = fixture.wait_due(RowTable::Parked).await;
        assert_eq!(ids(&rows), [message.headers.message_id], "one at a time");
        assert_eq!(rows[0].key.as_deref(), Some("k"));
        assert!(fixture.blocked("k").await);
        fixture.apply(fixture.handled(&rows[0])).await;
    }
    assert!(!fixture.blocked("k").await);
}

/// A turn that fails blocks the key again, ahead of those that are still parked; a dead letter lets them pass.
pub async fn a_failing_turn_keeps_its_place(fixture: Fixture) {
    let second = queue_up(&fixture, "k").await;
    let third = queue_up(&fixture, "k").await;
    let row = fixture.wait_due(RowTable::Parked).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&row)), [second.headers.message_id]);
    let mut unit = fixture.handled(&row);
    unit.disposition = deferred(&second, Some("k"), Duration::ZERO);
    fixture.apply(unit).await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 0);
    let row = fixture.wait_due(RowTable::Retry).await.remove(0);
    let mut unit = fixture.handled(&row);
    unit.disposition = buried(&second, "gave up");
    fixture.apply(unit).await;
    assert_eq!(ids(&fixture.wait_due(RowTable::Parked).await), [third.headers.message_id]);
}

/// A key blocks itself only: not other keys, handlers or endpoints.
pub async fn a_key_blocks_itself_only(fixture: Fixture) {
    defer(&fixture, "k", LONG).await;
    let other = queue_up(&fixture, "other").await;
    assert_eq!(ids(&fixture.wait_due(RowTable::Parked).await), [other.headers.message_id]);
    let message = Arc::new(fixture.keyed("k"));
    let mut unit = fixture.disposed(&message, parked_turn(&message, "k"));
    unit.handler = "audit".into();
    fixture.apply(unit).await;
    assert_eq!(fixture.due(RowTable::Parked).await.len(), 2);
    let turns = [("order", "k"), ("order", "K"), ("audit", "k"), ("order", "other"), ("none", "k")];
    let turns = turns.map(|(handler, key)| (handler.into(), key.into())).into();
    let reply = fixture.load(sagabus_core::LoadRequest { blocked_keys: turns, ..Default::default() }).await;
    assert_eq!(reply.blocked_keys, [true, false, true, true, false]);
    let billing = fixture.endpoint("billing");
    assert!(!billing.blocked("k").await);
    assert_eq!(billing.due(RowTable::Parked).await.len(), 0);
}
