//! Messages that wait: for a saga, for their turn, for another try.

use crate::store::{
    Bed,
    bed::{buried, deferred, letters, parked_saga, parked_turn},
    complete, create,
};
use sagabus_core::{DueRow, Envelope, RowTable, alias_key};
use std::{sync::Arc, time::Duration};

const LONG: Duration = Duration::from_secs(3600);

async fn park(bed: &Bed, key: &str, at_most: Duration) -> Arc<Envelope> {
    let message = Arc::new(bed.message());
    bed.apply(bed.disposed(&message, parked_saga(&message, key, at_most))).await;
    message
}

async fn defer(bed: &Bed, key: &str, delay: Duration) -> Arc<Envelope> {
    let message = Arc::new(bed.keyed(key));
    bed.apply(bed.disposed(&message, deferred(&message, Some(key), delay))).await;
    message
}

async fn queue_up(bed: &Bed, key: &str) -> Arc<Envelope> {
    let message = Arc::new(bed.keyed(key));
    bed.apply(bed.disposed(&message, parked_turn(&message, key))).await;
    message
}

fn ids(rows: &[DueRow]) -> Vec<sagabus_core::MessageId> {
    rows.iter().map(|row| row.message.headers.message_id).collect()
}

/// The transaction that creates a saga makes what was parked for it due, in order, and nothing else.
pub async fn park_then_create(bed: Bed) {
    let first = park(&bed, "k", LONG).await;
    let second = park(&bed, "k", LONG).await;
    park(&bed, "other", LONG).await;
    let mut other = create("k", bed.instance(), &b"x"[..]);
    other.kind = "shop/other".into();
    bed.apply(bed.writes(other)).await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0, "another kind");
    bed.born("k").await;
    let rows = bed.wait_due(RowTable::Parked).await;
    assert_eq!(ids(&rows), [first.headers.message_id, second.headers.message_id]);
    assert_eq!((&*rows[0].handler, &rows[0].key), ("order", &None));
    for row in &rows {
        bed.apply(bed.handled(row)).await;
    }
    assert_eq!(bed.count("parked").await, 1);
}

/// The other order: the saga exists by the time the message is parked, so it is due at once.
pub async fn create_then_park(bed: Bed) {
    bed.born("k").await;
    let message = park(&bed, "k", LONG).await;
    assert_eq!(ids(&bed.wait_due(RowTable::Parked).await), [message.headers.message_id]);
}

/// Both at the same time, and in one batch: never forgotten.
pub async fn park_and_create_race(bed: Bed) {
    let other = bed.other().await;
    for round in 0..10 {
        let key = format!("k{round}");
        let message = Arc::new(bed.message());
        let park = bed.disposed(&message, parked_saga(&message, &key, LONG));
        let create = other.writes(create(&key, bed.instance(), &b"x"[..]));
        if round < 8 {
            let (one, two) = futures::join!(bed.commit_one(park), other.commit_one(create));
            assert!(one.is_applied() && two.is_applied(), "{one:?} {two:?}");
        } else {
            let units = if round == 8 { vec![park, create] } else { vec![create, park] };
            assert_eq!(letters(&bed.commit(units).await), "AA");
        }
        let rows = bed.wait_due(RowTable::Parked).await;
        assert_eq!(ids(&rows), [message.headers.message_id]);
        bed.apply(bed.handled(&rows[0])).await;
    }
}

/// Nobody creates the saga: the message is due when its time is up, and not before.
pub async fn parked_for_so_long_at_most(bed: Bed) {
    let wait = Duration::from_millis(150);
    let before = bed.store.now().await.expect("now");
    let message = park(&bed, "k", wait).await;
    let rows = bed.wait_due(RowTable::Parked).await;
    assert!(bed.store.now().await.expect("now").since(before) >= wait);
    assert_eq!(ids(&rows), [message.headers.message_id]);
}

/// A message that looks for its saga by an alias is due when the alias is added, or at once if it exists.
pub async fn parked_for_an_alias(bed: Bed) {
    let key = alias_key("invoice", "i1");
    let first = park(&bed, &key, LONG).await;
    bed.born("i1").await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0);
    let instance = bed.born("k").await;
    let mut write = crate::store::update("k", instance, 1, &b"x"[..]);
    write.aliases.push(("invoice".into(), "i1".into()));
    bed.apply(bed.writes(write)).await;
    let rows = bed.wait_due(RowTable::Parked).await;
    assert_eq!(ids(&rows), [first.headers.message_id]);
    bed.apply(bed.handled(&rows[0])).await;
    let second = park(&bed, &key, LONG).await;
    assert_eq!(ids(&bed.wait_due(RowTable::Parked).await), [second.headers.message_id]);
}

/// A saga that is gone adopts nothing; its next life does.
pub async fn a_completed_saga_adopts_nothing(bed: Bed) {
    let instance = bed.born("k").await;
    bed.apply(bed.writes(complete("k", instance, 1))).await;
    let message = park(&bed, "k", LONG).await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0);
    bed.born("k").await;
    assert_eq!(ids(&bed.wait_due(RowTable::Parked).await), [message.headers.message_id]);
}

/// A chain that creates the saga adopts too.
pub async fn a_chain_adopts(bed: Bed) {
    park(&bed, "k", LONG).await;
    let instance = bed.instance();
    let units = vec![
        bed.writes(create("k", instance, &b"1"[..])),
        bed.writes(crate::store::update("k", instance, 1, &b"2"[..])),
        bed.writes(crate::store::update("k", instance, 2, &b"3"[..])),
    ];
    assert_eq!(letters(&bed.commit(units).await), "AAA");
    assert_eq!(bed.wait_due(RowTable::Parked).await.len(), 1);
}

/// A life that begins and ends in one batch, and an alias that came and went with it, adopt too: whoever waited finds
/// nobody, and hears so at once.
pub async fn a_short_life_adopts(bed: Bed) {
    park(&bed, "k", LONG).await;
    park(&bed, &alias_key("invoice", "i1"), LONG).await;
    let instance = bed.instance();
    let mut named = crate::store::update("k", instance, 1, &b"2"[..]);
    named.aliases.push(("invoice".into(), "i1".into()));
    let units =
        vec![bed.writes(create("k", instance, &b"1"[..])), bed.writes(named), bed.writes(complete("k", instance, 2))];
    assert_eq!(letters(&bed.commit(units).await), "AAA");
    assert_eq!(bed.wait_due(RowTable::Parked).await.len(), 2);
}

/// While a message of a key is retried, the key is blocked; those parked behind it come one by one, in order.
pub async fn turns_come_in_order(bed: Bed) {
    assert!(!bed.blocked("k").await);
    let first = defer(&bed, "k", Duration::from_millis(100)).await;
    assert!(bed.blocked("k").await && bed.other().await.blocked("k").await);
    let second = queue_up(&bed, "k").await;
    let third = queue_up(&bed, "k").await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0, "the first one is still being retried");
    let row = bed.wait_due(RowTable::Retry).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&row)), [first.headers.message_id]);
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0, "due is not done");
    bed.apply(bed.handled(&row)).await;
    for message in [second, third] {
        let rows = bed.wait_due(RowTable::Parked).await;
        assert_eq!(ids(&rows), [message.headers.message_id], "one at a time");
        assert_eq!(rows[0].key.as_deref(), Some("k"));
        assert!(bed.blocked("k").await);
        bed.apply(bed.handled(&rows[0])).await;
    }
    assert!(!bed.blocked("k").await);
}

/// A turn that fails blocks the key again, ahead of those that are still parked; a dead letter lets them pass.
pub async fn a_failing_turn_keeps_its_place(bed: Bed) {
    let second = queue_up(&bed, "k").await;
    let third = queue_up(&bed, "k").await;
    let row = bed.wait_due(RowTable::Parked).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&row)), [second.headers.message_id]);
    let mut unit = bed.handled(&row);
    unit.disposition = deferred(&second, Some("k"), Duration::ZERO);
    bed.apply(unit).await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 0);
    let row = bed.wait_due(RowTable::Retry).await.remove(0);
    let mut unit = bed.handled(&row);
    unit.disposition = buried(&second, "gave up");
    bed.apply(unit).await;
    assert_eq!(ids(&bed.wait_due(RowTable::Parked).await), [third.headers.message_id]);
}

/// A key blocks itself only: not other keys, handlers or endpoints.
pub async fn a_key_blocks_itself_only(bed: Bed) {
    defer(&bed, "k", LONG).await;
    let other = queue_up(&bed, "other").await;
    assert_eq!(ids(&bed.wait_due(RowTable::Parked).await), [other.headers.message_id]);
    let message = Arc::new(bed.keyed("k"));
    let mut unit = bed.disposed(&message, parked_turn(&message, "k"));
    unit.handler = "audit".into();
    bed.apply(unit).await;
    assert_eq!(bed.due(RowTable::Parked).await.len(), 2);
    let turns = [("order", "k"), ("order", "K"), ("audit", "k"), ("order", "other"), ("none", "k")];
    let turns = turns.map(|(handler, key)| (handler.into(), key.into())).into();
    let reply = bed.load(sagabus_core::LoadRequest { blocked_keys: turns, ..Default::default() }).await;
    assert_eq!(reply.blocked_keys, [true, false, true, true, false]);
    let billing = bed.endpoint("billing");
    assert!(!billing.blocked("k").await);
    assert_eq!(billing.due(RowTable::Parked).await.len(), 0);
}
