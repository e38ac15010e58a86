//! Each unit is atomic: everything, or nothing.

use crate::store::{
    Bed, KIND,
    bed::{letters, queue_gate},
    create, to_queue, to_topic,
};
use sagabus_core::{Fence, OutboxId, Outcome, SagaLookup, UnitOfWork};

/// A unit with an effect of every kind.
async fn full(bed: &Bed, key: &str) -> UnitOfWork {
    let mut unit = bed.unit();
    let attempts = bed.store.count_attempt("shop", "order", unit.message_id).await.expect("count");
    assert_eq!(attempts, 1);
    unit.has_attempt_row = true;
    let mut write = create(key, bed.instance(), &b"full"[..]);
    write.aliases.push(("invoice".into(), key.into()));
    unit.saga = Some(write);
    unit.sends = vec![to_queue("q", bed.message()), to_topic("t", bed.message())];
    unit.timers.push(bed.past_timer(key));
    unit
}

fn alias(value: &str) -> SagaLookup {
    SagaLookup::Alias { kind: KIND.into(), alias: "invoice".into(), value: value.into() }
}

/// (inbox, saga, alias, timer, attempt, queue, outbox)
async fn totals(bed: &Bed) -> [u64; 7] {
    let queue = if bed.store.queues().is_some() { bed.queue("q").await.len() as u64 } else { 0 };
    [
        bed.inbox().await,
        bed.count("saga").await,
        bed.count("saga_alias").await,
        bed.count("timer").await,
        bed.count("attempt").await,
        queue,
        bed.count("outbox").await,
    ]
}

/// A committed unit left its inbox row, saga, alias, timer and sends, and took its attempt with it.
pub async fn applied_leaves_every_effect(bed: Bed) {
    let Some(queues) = bed.queues(&["q"]).await else { return };
    queues.subscribe("q", &["t".into()]).await.expect("subscribe");
    let unit = full(&bed, "k").await;
    let id = unit.message_id;
    assert_eq!(totals(&bed).await, [0, 0, 0, 0, 1, 0, 0]);
    bed.apply(unit).await;
    assert_eq!(totals(&bed).await, [1, 1, 1, 1, 0, 2, 0]);
    assert!(bed.probe(id).await);
    assert_eq!(bed.version("k").await, Some((1, b"full".to_vec())));
    assert_eq!(bed.find(alias("k")).await.map(|row| row.key), Some("k".into()));
}

/// A stale unit left nothing: no inbox row, no ghost, no timer; and its attempt is still counted.
pub async fn stale_leaves_nothing(bed: Bed) {
    if bed.queues(&["q"]).await.is_none() {
        return;
    }
    bed.born("k").await;
    let unit = full(&bed, "k").await;
    let id = unit.message_id;
    let before = totals(&bed).await;
    assert_eq!(letters(&bed.commit(vec![unit]).await), "S");
    assert_eq!(totals(&bed).await, before);
    assert!(!bed.probe(id).await);
    assert_eq!(bed.find(alias("k")).await, None);
}

/// A unit that comes twice left its effects once.
pub async fn duplicate_leaves_nothing_more(bed: Bed) {
    if bed.queues(&["q"]).await.is_none() {
        return;
    }
    let unit = full(&bed, "k").await;
    let mut again = unit.clone();
    // other ids, so that no other uniqueness hides what the gate lets through
    again.sends = vec![to_queue("q", bed.message())];
    again.timers = vec![bed.past_timer("other")];
    again.saga = Some(create("other", bed.instance(), &b"other"[..]));
    bed.apply(unit).await;
    let before = totals(&bed).await;
    assert_eq!(before[..4], [1, 1, 1, 1]);
    assert_eq!(letters(&bed.commit(vec![again]).await), "D");
    assert_eq!(totals(&bed).await, before);
}

/// A unit whose shard has another owner by now left nothing.
pub async fn lost_fence_leaves_nothing(bed: Bed) {
    if bed.queues(&["q"]).await.is_none() {
        return;
    }
    let mut unit = full(&bed, "k").await;
    unit.fence = Some(Fence { group: "queue:nobody".into(), shard: 3, epoch: 7 });
    let before = totals(&bed).await;
    assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "S");
    assert_eq!(totals(&bed).await, before);
    unit.fence = None;
    bed.apply(unit).await;
    assert_ne!(totals(&bed).await, before);
}

/// With an outbox, the sends are recorded with everything else, and named in order.
pub async fn split_leaves_every_effect(bed: Bed) {
    let unit = full(&bed, "k").await;
    let sent: Vec<_> = unit.sends.iter().map(|send| send.message.headers.message_id).collect();
    let (ids, behind) = bed.split_one(unit).await;
    assert_eq!((ids.len(), behind), (2, false));
    assert_eq!(totals(&bed).await, [1, 1, 1, 1, 0, 0, 2]);
    let rows = bed.store.outbox_own(&bed.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), ids);
    assert_eq!(rows.iter().map(|row| row.outgoing.message.headers.message_id).collect::<Vec<_>>(), sent);
}

/// A stale or repeated unit records no send.
pub async fn split_stale_leaves_nothing(bed: Bed) {
    let first = full(&bed, "k").await;
    let stale = full(&bed, "k").await;
    let mut again = first.clone();
    again.saga = None;
    again.sends = vec![to_queue("q", bed.message())];
    bed.split_one(first).await;
    let before = totals(&bed).await;
    assert_eq!(before[6], 2);
    assert_eq!(letters(&bed.split(vec![stale, again]).await.outcomes), "SD");
    assert_eq!(totals(&bed).await, before);
}

/// Where a queue row is the gate, it goes with the effects, and stays without them.
pub async fn own_row_gate_and_effects_are_one(bed: Bed) {
    if bed.queues(&["q", "in"]).await.is_none() {
        return;
    }
    let instance = bed.born("k").await;
    bed.enqueue("in", bed.message()).await;
    let row = bed.queue("in").await.remove(0);
    let mut unit = bed.unit_of("order", row.message_id, queue_gate(&row));
    unit.sends.push(to_queue("q", bed.message()));
    unit.saga = Some(crate::store::update("k", instance, 9, &b"never"[..]));
    assert_eq!(letters(&bed.commit(vec![unit.clone()]).await), "S");
    assert_eq!((bed.queue("in").await.len(), bed.queue("q").await.len()), (1, 0));
    unit.saga = Some(crate::store::update("k", instance, 1, &b"next"[..]));
    bed.apply(unit).await;
    assert_eq!((bed.queue("in").await.len(), bed.queue("q").await.len()), (0, 1));
}

/// A message without effects is handled once too.
pub async fn no_effects_still_open_the_gate(bed: Bed) {
    let unit = bed.unit();
    let first = bed.commit_one(unit.clone()).await;
    assert!(
        matches!(&first, Outcome::Applied { outbox, blocked_by_predecessor: false } if outbox.is_empty()),
        "{first:?}"
    );
    assert!(matches!(bed.commit_one(unit).await, Outcome::Duplicate));
    assert_eq!(bed.inbox().await, 1);
}
