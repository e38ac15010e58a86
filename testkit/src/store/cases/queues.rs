//! Queues as tables.

use crate::store::{Fixture, to_queue, to_topic};
use sagabus_core::{Headers, SHARDS, SendOutcome, shard_of};
use std::time::Duration;

/// A message is read as it was enqueued, by anyone, without being changed.
pub async fn messages_are_read_as_they_came(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    let messages = [fixture.message(), fixture.keyed("k"), fixture.message()];
    let batch: Vec<_> = messages.iter().map(|message| to_queue("q", message.clone())).collect();
    let outcomes = queues.enqueue(&batch).await;
    assert!(outcomes.len() == 3 && outcomes.iter().all(SendOutcome::is_done), "{outcomes:?}");
    for fixture in [&fixture, &fixture.other().await] {
        let rows = fixture.queue("q").await;
        assert_eq!(rows.len(), 3);
        assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
        for (row, message) in rows.iter().zip(&messages) {
            assert_eq!(row.message_id, message.headers.message_id);
            assert_eq!(Headers::from_json(&row.headers).expect("headers"), *message.headers);
            assert_eq!(row.body, message.body);
            let key = message.headers.order_key.as_deref().map(str::as_bytes);
            assert_eq!(row.shard, shard_of(key.unwrap_or(message.headers.message_id.0.as_bytes())));
        }
    }
    assert_eq!(queues.depth("q").await.expect("depth"), 3);
}

/// Each outcome says what became of its message; a queue that was never declared is unroutable.
pub async fn outcomes_are_per_message(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    let batch = [
        to_queue("q", fixture.message()),
        to_queue("nowhere", fixture.message()),
        to_topic("nothing", fixture.message()),
        to_queue("Q", fixture.message()),
        to_queue("q", fixture.message()),
    ];
    let outcomes = queues.enqueue(&batch).await;
    assert_eq!(outcomes.len(), 5);
    for (n, outcome) in outcomes.iter().enumerate() {
        match (n, outcome) {
            (0 | 2 | 4, SendOutcome::Done) => {}
            (1, SendOutcome::Unroutable(text)) => assert!(text.contains("nowhere"), "{text}"),
            (3, SendOutcome::Unroutable(_)) => {}
            _ => panic!("message {n}: {outcome:?}"),
        }
    }
    assert_eq!(queues.depth("q").await.expect("depth"), 2);
    assert!(queues.enqueue(&[]).await.is_empty());
}

/// An id is added once within the horizon, also within one batch, also after it was handled, by any process.
pub async fn an_id_is_added_once(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    let message = fixture.message();
    let twice = [to_queue("q", message.clone()), to_queue("q", message.clone())];
    assert!(queues.enqueue(&twice).await.iter().all(SendOutcome::is_done));
    fixture.other().await.enqueue("q", message.clone()).await;
    let rows = fixture.queue("q").await;
    assert_eq!(rows.len(), 1);
    queues.delete("q", &[rows[0].id]).await.expect("delete");
    fixture.enqueue("q", message).await;
    assert_eq!(queues.depth("q").await.expect("depth"), 0);
}

/// Who subscribes late gets what is published from then on; who no longer subscribes, nothing more.
pub async fn subscriptions_change(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["early", "late"]).await else { return };
    let topics = |list: &[&str]| list.iter().map(|topic| (*topic).to_string()).collect::<Vec<_>>();
    let publish = || async {
        let outcomes = queues.enqueue(&[to_topic("t", fixture.message())]).await;
        assert!(outcomes[0].is_done());
    };
    queues.subscribe("early", &topics(&["t", "u"])).await.expect("subscribe");
    publish().await;
    queues.subscribe("late", &topics(&["t"])).await.expect("subscribe");
    publish().await;
    queues.subscribe("early", &topics(&["u", "v"])).await.expect("subscribe");
    publish().await;
    for name in ["early", "late"] {
        queues.declare(name).await.expect("declare again");
    }
    publish().await;
    assert_eq!((fixture.queue("early").await.len(), fixture.queue("late").await.len()), (2, 3));
}

/// Reading is by shard, from an id on, so many at most; together nothing is left out.
pub async fn reading_is_by_shard_and_page(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q", "other"]).await else { return };
    let batch: Vec<_> = (0..100).map(|_| to_queue("q", fixture.message())).collect();
    assert!(queues.enqueue(&batch).await.iter().all(SendOutcome::is_done));
    fixture.enqueue("other", fixture.message()).await;
    let mut seen = Vec::new();
    for half in [(0..SHARDS / 2).collect::<Vec<_>>(), (SHARDS / 2..SHARDS).collect()] {
        let mut after = 0;
        loop {
            let page = queues.read("q", &half, after, 7).await.expect("read");
            assert!(page.len() <= 7 && page.iter().all(|row| half.contains(&row.shard) && row.id > after));
            let Some(last) = page.last() else { break };
            after = last.id;
            seen.extend(page.into_iter().map(|row| row.message_id));
            assert!(seen.len() <= 100, "a page begins after the one before it");
        }
    }
    let mut sent: Vec<_> = batch.iter().map(|send| send.message.headers.message_id).collect();
    seen.sort_unstable();
    sent.sort_unstable();
    assert_eq!(seen, sent);
    assert_eq!(queues.read("q", &[], 0, 10).await.expect("read").len(), 0);
    assert_eq!(queues.read("nowhere", &[0], 0, 10).await.expect("read").len(), 0);
}

/// Deleting is for settling: rows that are gone do not matter, and other queues' rows stay.
pub async fn deleting_settles(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q", "other"]).await else { return };
    for queue in ["q", "q", "q", "other"] {
        fixture.enqueue(queue, fixture.message()).await;
    }
    let ids: Vec<i64> = fixture.queue("q").await.iter().map(|row| row.id).collect();
    let other = fixture.queue("other").await[0].id;
    queues.delete("q", &[ids[0], other, ids[2], 1 << 40]).await.expect("delete");
    queues.delete("q", &[ids[0]]).await.expect("delete again");
    queues.delete("q", &[]).await.expect("delete nothing");
    assert_eq!(fixture.queue("q").await.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[1]]);
    assert_eq!(queues.depth("other").await.expect("depth"), 1);
    assert_eq!(queues.depth("nowhere").await.expect("depth"), 0);
}

/// Who waits for a queue is woken, or looks again when the time is up.
pub async fn waiting_ends(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    queues.wait("q", Duration::from_millis(30)).await;
    let start = fixture.runtime.elapsed();
    let long = Duration::from_secs(8);
    futures::join!(queues.wait("q", long), async {
        fixture.runtime.sleep(Duration::from_millis(30)).await;
        fixture.enqueue("q", fixture.message()).await;
    });
    assert!(fixture.runtime.elapsed() - start < long / 2, "a message of this process wakes at once");
}

/// The queues are of the store's database, and their groups are not the endpoints'.
pub async fn queues_and_store_are_one_database(fixture: Fixture) {
    let Some(queues) = fixture.queues(&["q"]).await else { return };
    assert_eq!(queues.database(), fixture.store.database());
    queues.migrate().await.expect("migrate");
    let request = |group: &str| sagabus_core::LeaseRequest {
        group: group.into(),
        node: fixture.owner.node,
        ttl: Duration::from_secs(30),
        shards: true,
        release: Vec::new(),
    };
    assert_eq!(queues.leases().heartbeat(&request("queue:q")).await.expect("heartbeat").shards.len(), 32);
    assert_eq!(fixture.store.leases().heartbeat(&request("q")).await.expect("heartbeat").members, 1);
}
