//! Joined sends: into queues of the same database, in the same commit.

use crate::store::{
    Fixture,
    fixture::{outcome_codes, queue_gate},
    to_queue, to_topic,
};
use sagabus_core::{Headers, MessageId, QueueRow};

fn ids(rows: &[QueueRow]) -> Vec<MessageId> {
    rows.iter().map(|row| row.message_id).collect()
}

/// A message to a queue arrives there, as it was.
pub async fn a_message_reaches_its_queue(fixture: Fixture) {
    if fixture.queues(&["q", "other"]).await.is_none() {
        return;
    }
    let mut message = fixture.keyed("ü'");
    message.body = vec![0, 255, 39].into();
    let mut unit = fixture.unit();
    unit.sends.push(to_queue("q", message.clone()));
    fixture.apply(unit).await;
    let rows = fixture.queue("q").await;
    assert_eq!(ids(&rows), [message.headers.message_id]);
    assert_eq!(Headers::from_json(&rows[0].headers).expect("headers"), *message.headers);
    assert_eq!(rows[0].body, message.body);
    assert_eq!((fixture.queue("other").await.len(), fixture.count("outbox").await), (0, 0));
}

/// Messages of a unit, of a batch and of one commit after another lie in the queue in their order.
pub async fn messages_keep_their_order(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    let mut sent = Vec::new();
    for _ in 0..5 {
        let units = (0..4).map(|_| {
            let mut unit = fixture.unit();
            unit.sends = (0..3).map(|_| to_queue("q", fixture.keyed("k"))).collect();
            sent.extend(unit.sends.iter().map(|send| send.message.headers.message_id));
            unit
        });
        assert_eq!(outcome_codes(&fixture.commit(units.collect()).await), "AAAA");
    }
    let rows = fixture.queue("q").await;
    assert_eq!(ids(&rows), sent);
    assert!(rows.iter().all(|row| row.shard == rows[0].shard), "one order key is one shard");
}

/// A topic is copied to each queue that subscribed: none, one, three.
pub async fn a_topic_reaches_its_subscribers(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["a", "b", "c", "d"]).await else { return };
    for (queue, topics) in
        [("a", &["one", "three"][..]), ("b", &["three"]), ("c", &["three"]), ("d", &["thre", "Three"])]
    {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).into()).collect();
        queues.subscribe(queue, &topics).await.expect("subscribe");
    }
    let mut unit = fixture.unit();
    unit.sends = ["none", "one", "three"].map(|topic| to_topic(topic, fixture.message())).into();
    let sent: Vec<MessageId> = unit.sends.iter().map(|send| send.message.headers.message_id).collect();
    fixture.apply(unit).await;
    assert_eq!(ids(&fixture.queue("a").await), [sent[1], sent[2]]);
    assert_eq!(ids(&fixture.queue("b").await), [sent[2]]);
    assert_eq!(ids(&fixture.queue("c").await), [sent[2]]);
    assert_eq!(fixture.queue("d").await.len(), 0);
    assert_eq!(fixture.dead().await.len(), 0, "an event that nobody wants is fine");
}

/// A message to a queue that does not exist is a dead letter of its sender; the rest of the unit commits.
pub async fn an_unknown_queue_is_a_dead_letter(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    let lost = fixture.message();
    let mut unit = fixture.writes(crate::store::create("k", fixture.instance(), &b"x"[..]));
    unit.sends = vec![to_queue("nowhere", lost.clone()), to_queue("q", fixture.message())];
    fixture.apply(unit).await;
    let dead = fixture.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].message, lost);
    let text = format!("{} {:?}", dead[0].reason, dead[0].detail);
    assert!(text.contains("nowhere"), "the reason names the queue: {text}");
    assert_eq!((fixture.queue("q").await.len(), fixture.count("saga").await), (1, 1));
}

/// An id that a queue has seen is not added again, from wherever it comes; another queue takes it.
pub async fn a_queue_takes_an_id_once(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q", "r"]).await else { return };
    let message = fixture.message();
    for _ in 0..2 {
        let mut unit = fixture.unit();
        unit.sends = ["q", "q", "r"].map(|queue| to_queue(queue, message.clone())).into();
        fixture.apply(unit).await;
    }
    fixture.enqueue("q", message.clone()).await;
    assert_eq!((fixture.queue("q").await.len(), fixture.queue("r").await.len()), (1, 1));
    let row = fixture.queue("q").await.remove(0);
    queues.delete("q", &[row.id]).await.expect("delete");
    fixture.enqueue("q", message).await;
    assert_eq!(fixture.queue("q").await.len(), 0, "also when the first one is handled already");
}

/// Ids that were drawn for a unit are sent once by its gate alone, also beside an id that a queue has seen.
pub async fn new_ids_are_sent_once(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q", "r"]).await else { return };
    queues.subscribe("r", &["t".into()]).await.expect("subscribe");
    let seen = fixture.message();
    fixture.enqueue("q", seen.clone()).await;
    let unit = |fresh_ids, sends| {
        let mut unit = fixture.unit();
        (unit.fresh_ids, unit.sends) = (fresh_ids, sends);
        unit
    };
    let (first, second, third) = (fixture.message(), fixture.message(), fixture.message());
    let units = vec![
        unit(true, vec![to_queue("q", first.clone()), to_topic("t", second.clone())]),
        unit(false, vec![to_queue("q", seen.clone()), to_queue("r", seen.clone())]),
        unit(true, vec![to_queue("q", third.clone())]),
    ];
    for outcomes in ["AAA", "DDD"] {
        assert_eq!(outcome_codes(&fixture.commit(units.clone()).await), outcomes);
        let wanted = [&seen, &first, &third].map(|message| message.headers.message_id);
        assert_eq!(ids(&fixture.queue("q").await), wanted);
        assert_eq!(ids(&fixture.queue("r").await), [&second, &seen].map(|message| message.headers.message_id));
    }
}

/// A message is taken from a queue and its follow-up put into the same one, in one step.
pub async fn a_queue_feeds_itself(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() {
        return;
    }
    fixture.enqueue("q", fixture.message()).await;
    for _ in 0..5 {
        let row = fixture.queue("q").await.remove(0);
        let mut unit = fixture.unit_of("order", row.message_id, queue_gate(&row));
        unit.sends.push(to_queue("q", fixture.message()));
        fixture.apply(unit.clone()).await;
        assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
        let rows = fixture.queue("q").await;
        assert!(rows.len() == 1 && rows[0].message_id != row.message_id && rows[0].id > row.id);
    }
}
