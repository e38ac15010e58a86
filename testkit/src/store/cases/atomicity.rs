//! Each unit is atomic: everything, or nothing.

use crate::store::{
    Fixture, KIND, create,
    fixture::{outcome_codes, queue_gate},
    to_queue, to_topic,
};
use sagabus_core::{Fence, OutboxId, Outcome, SagaLookup, UnitOfWork};

/// A unit with an effect of every kind.
async fn full(fixture: &Fixture, key: &str) -> UnitOfWork {
    let mut unit = fixture.unit();
    let attempts = fixture.store.count_attempt("shop", "order", unit.message_id).await.expect("count");
    assert_eq!(attempts, 1);
    unit.has_attempt_row = true;
    let mut write = create(key, fixture.instance(), &b"full"[..]);
    write.aliases.push(("invoice".into(), key.into()));
    unit.saga = Some(write);
    unit.sends = vec![to_queue("q", fixture.message()), to_topic("t", fixture.message())];
    unit.timers.push(fixture.past_timer(key));
    unit
}

fn alias(value: &str) -> SagaLookup {
    SagaLookup::Alias { kind: KIND.into(), alias: "invoice".into(), value: value.into() }
}

/// (inbox, saga, alias, timer, attempt, queue, outbox)
async fn totals(fixture: &Fixture) -> [u64; 7] {
    let queue = if fixture.store.queues().is_some() { fixture.queue("q").await.len() as u64 } else { 0 };
    [
        fixture.inbox().await,
        fixture.count("saga").await,
        fixture.count("saga_alias").await,
        fixture.count("timer").await,
        fixture.count("attempt").await,
        queue,
        fixture.count("outbox").await,
    ]
}

/// A committed unit left its inbox row, saga, alias, timer and sends, and took its attempt with it.
pub async fn applied_leaves_every_effect(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    queues.subscribe("q", &["t".into()]).await.expect("subscribe");
    let unit = full(&fixture, "k").await;
    let id = unit.message_id;
    assert_eq!(totals(&fixture).await, [0, 0, 0, 0, 1, 0, 0]);
    fixture.apply(unit).await;
    assert_eq!(totals(&fixture).await, [1, 1, 1, 1, 0, 2, 0]);
    assert!(fixture.probe(id).await);
    assert_eq!(fixture.version("k").await, Some((1, b"full".to_vec())));
    assert_eq!(fixture.find(alias("k")).await.map(|row| row.key), Some("k".into()));
}

/// A stale unit left nothing: no inbox row, no ghost, no timer; and its attempt is still counted.
pub async fn stale_leaves_nothing(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    fixture.born("k").await;
    let unit = full(&fixture, "k").await;
    let id = unit.message_id;
    let before = totals(&fixture).await;
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "S");
    assert_eq!(totals(&fixture).await, before);
    assert!(!fixture.probe(id).await);
    assert_eq!(fixture.find(alias("k")).await, None);
}

/// A unit that comes twice left its effects once.
pub async fn duplicate_leaves_nothing_more(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    let unit = full(&fixture, "k").await;
    let mut again = unit.clone();
    // other ids, so that no other uniqueness hides what the gate lets through
    again.sends = vec![to_queue("q", fixture.message())];
    again.timers = vec![fixture.past_timer("other")];
    again.saga = Some(create("other", fixture.instance(), &b"other"[..]));
    fixture.apply(unit).await;
    let before = totals(&fixture).await;
    assert_eq!(before[..4], [1, 1, 1, 1]);
    assert_eq!(outcome_codes(&fixture.commit(vec![again]).await), "D");
    assert_eq!(totals(&fixture).await, before);
}

/// A unit whose shard has another owner by now left nothing.
pub async fn lost_fence_leaves_nothing(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    let mut unit = full(&fixture, "k").await;
    unit.fence = Some(Fence { group: "queue:nobody".into(), shard: 3, epoch: 7 });
    let before = totals(&fixture).await;
    assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "S");
    assert_eq!(totals(&fixture).await, before);
    unit.fence = None;
    fixture.apply(unit).await;
    assert_ne!(totals(&fixture).await, before);
}

/// With an outbox, the sends are recorded with everything else, and named in order.
pub async fn split_leaves_every_effect(fixture: Fixture) {
    let unit = full(&fixture, "k").await;
    let sent: Vec<_> = unit.sends.iter().map(|send| send.message.headers.message_id).collect();
    let (ids, behind) = fixture.split_one(unit).await;
    assert_eq!((ids.len(), behind), (2, false));
    assert_eq!(totals(&fixture).await, [1, 1, 1, 1, 0, 0, 2]);
    let rows = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), ids);
    assert_eq!(rows.iter().map(|row| row.outgoing.message.headers.message_id).collect::<Vec<_>>(), sent);
}

/// A stale or repeated unit records no send.
pub async fn split_stale_leaves_nothing(fixture: Fixture) {
    let first = full(&fixture, "k").await;
    let stale = full(&fixture, "k").await;
    let mut again = first.clone();
    again.saga = None;
    again.sends = vec![to_queue("q", fixture.message())];
    fixture.split_one(first).await;
    let before = totals(&fixture).await;
    assert_eq!(before[6], 2);
    assert_eq!(outcome_codes(&fixture.split(vec![stale, again]).await.outcomes), "SD");
    assert_eq!(totals(&fixture).await, before);
}

/// Where a queue row is the gate, it goes with the effects, and stays without them.
pub async fn own_row_gate_and_effects_are_one(fixture: Fixture) {
    if fixture.queues(&["q", "in"]).await.is_none() {
        return;
    }
    let instance = fixture.born("k").await;
    fixture.enqueue("in", fixture.message()).await;
    let row = fixture.queue("in").await.remove(0);
    let mut unit = fixture.unit_of("order", row.message_id, queue_gate(&row));
    unit.sends.push(to_queue("q", fixture.message()));
    unit.saga = Some(crate::store::update("k", instance, 9, &b"never"[..]));
    assert_eq!(outcome_codes(&fixture.commit(vec![unit.clone()]).await), "S");
    assert_eq!((fixture.queue("in").await.len(), fixture.queue("q").await.len()), (1, 0));
    unit.saga = Some(crate::store::update("k", instance, 1, &b"next"[..]));
    fixture.apply(unit).await;
    assert_eq!((fixture.queue("in").await.len(), fixture.queue("q").await.len()), (0, 1));
}

/// A message without effects is handled once too.
pub async fn no_effects_still_open_the_gate(fixture: Fixture) {
    let unit = fixture.unit();
    let first = fixture.commit_one(unit.clone()).await;
    assert!(
        matches!(&first, Outcome::Applied { outbox, blocked_by_predecessor: false } if outbox.is_empty()),
        "{first:?}"
    );
    assert!(matches!(fixture.commit_one(unit).await, Outcome::Duplicate));
    assert_eq!(fixture.inbox().await, 1);
}
