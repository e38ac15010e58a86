//! Messages reach whom they are for, and nobody else.

use crate::transport::{
    Fixture,
    cases::missing::no_topics,
    fixture::{ids, sorted},
};
use sagabus_core::{Destination, Outgoing, SendOutcome, Settle, Topology};

/// A command reaches its queue only.
pub async fn send_reaches_its_queue_only(fixture: Fixture) {
    fixture.queue("a", &[]).await;
    fixture.queue("b", &[]).await;
    let sent = fixture.fill("a", 3).await;
    let (a, b) = (fixture.receiver("a", 10).await, fixture.receiver("b", 10).await);
    assert_eq!(sorted(ids(&fixture.take(&a, 3).await)), sorted(sent));
    fixture.nothing(&b).await;
}

/// A queue that does not exist is an answer, not an error, and not a silent loss.
pub async fn unroutable_is_told(fixture: Fixture) {
    fixture.queue("a", &[]).await;
    let to = |queue: &str| Outgoing { to: Destination::Queue(queue.into()), message: fixture.message("x") };
    let outcomes = fixture.transport.send_batch(&[to("a"), to("nowhere"), to("a")]).await;
    assert!(outcomes[0].is_done() && outcomes[2].is_done(), "{outcomes:?}");
    let SendOutcome::Unroutable(text) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(text.contains("nowhere"), "{text}");
    fixture.depth("a", 2).await;
}

/// Nothing to send is nothing wrong.
pub async fn an_empty_batch_is_fine(fixture: Fixture) {
    assert!(fixture.transport.send_batch(&[]).await.is_empty());
}

/// Nobody subscribed: that is fine, and nothing is kept.
pub async fn publish_to_nobody_is_done(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("a", &["kit.other"]).await;
    fixture.publish("kit.event", vec![fixture.message("x")]).await;
    fixture.depth("a", 0).await;
}

/// One subscriber gets one copy.
pub async fn publish_to_one(fixture: Fixture) {
    publish_to(&fixture, 1).await;
}

/// Three subscribers get one copy each, settled on their own.
pub async fn publish_to_three(fixture: Fixture) {
    publish_to(&fixture, 3).await;
}

async fn publish_to(fixture: &Fixture, count: usize) {
    if !fixture.transport.capabilities().topics {
        return no_topics(fixture).await;
    }
    let queues: Vec<String> = (0..count).map(|n| format!("sub-{n}")).collect();
    for queue in &queues {
        fixture.queue(queue, &["kit.event"]).await;
    }
    fixture.queue("bystander", &["kit.other"]).await;
    let sent = fixture.publish("kit.event", (0..5).map(|n| fixture.message(n.to_string())).collect()).await;
    for queue in &queues {
        let receiver = fixture.receiver(queue, 10).await;
        let got = fixture.take(&receiver, 5).await;
        assert_eq!(sorted(ids(&got)), sorted(sent.clone()));
        fixture.settle(&receiver, &got, Settle::Done).await;
        fixture.depth(queue, 0).await;
    }
    fixture.depth("bystander", 0).await;
}

/// One queue with several topics, in the mixed batch of one send.
pub async fn several_topics_of_one_queue(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("a", &["kit.one", "kit.two"]).await;
    fixture.queue("b", &["kit.two"]).await;
    let to = |to: Destination| Outgoing { to, message: fixture.message("x") };
    let batch = [
        to(Destination::Topic("kit.one".into())),
        to(Destination::Topic("kit.two".into())),
        to(Destination::Topic("kit.three".into())),
        to(Destination::Queue("b".into())),
    ];
    assert!(fixture.transport.send_batch(&batch).await.iter().all(SendOutcome::is_done));
    fixture.depth("a", 2).await;
    fixture.depth("b", 2).await;
}

/// A queue and a topic of the same name are two things.
pub async fn topics_are_no_queues(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("same", &[]).await;
    fixture.queue("other", &["same"]).await;
    fixture.publish("same", vec![fixture.message("x")]).await;
    fixture.depth("other", 1).await;
    fixture.depth("same", 0).await;
    fixture.fill("same", 2).await;
    fixture.depth("same", 2).await;
    fixture.depth("other", 1).await;
}

/// Two consumers of one subscriber share its copy.
pub async fn consumers_share_a_copy(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("a", &["kit.event"]).await;
    let other = fixture.again().await;
    let (one, two) = (fixture.receiver("a", 100).await, other.receiver("a", 100).await);
    let sent = fixture.publish("kit.event", (0..20).map(|n| fixture.message(n.to_string())).collect()).await;
    let mut seen = Vec::new();
    while seen.len() < sent.len() {
        for receiver in [&one, &two] {
            if let Some(got) = fixture.runtime.timeout(std::time::Duration::from_millis(20), receiver.next(100)).await {
                let got = got.unwrap();
                seen.extend(ids(&got));
                fixture.settle(receiver, &got, Settle::Done).await;
            }
        }
    }
    assert_eq!(sorted(seen), sorted(sent));
    fixture.nothing(&one).await;
    fixture.nothing(&two).await;
}

/// Provisioning again changes nothing and loses nothing.
pub async fn provisioning_again_is_harmless(fixture: Fixture) {
    let topics: &[&str] = if fixture.transport.capabilities().topics { &["kit.event"] } else { &[] };
    fixture.queue("a", topics).await;
    let sent = fixture.fill("a", 3).await;
    for process in [fixture.clone(), fixture.again().await, fixture.again().await] {
        process.queue("a", topics).await;
    }
    let receiver = fixture.receiver("a", 10).await;
    assert_eq!(sorted(ids(&fixture.take(&receiver, 3).await)), sorted(sent));
}

/// Many processes provision at once.
pub async fn provisioning_at_once_is_harmless(fixture: Fixture) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let fixture = fixture.clone();
            fixture.runtime.clone().spawn(async move { fixture.again().await.queue("a", &[]).await })
        })
        .collect();
    for task in tasks {
        task.join().await.expect("provisioning works");
    }
    fixture.fill("a", 1).await;
    fixture.depth("a", 1).await;
}

/// A subscription that is no longer named ends; the others stay.
pub async fn dropped_subscriptions_end(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("a", &["kit.one", "kit.two"]).await;
    fixture.queue("b", &["kit.one"]).await;
    fixture.publish("kit.one", vec![fixture.message("x")]).await;
    fixture.depth("a", 1).await;
    fixture.again().await.queue("a", &["kit.two"]).await;
    fixture.publish("kit.one", vec![fixture.message("y")]).await;
    fixture.publish("kit.two", vec![fixture.message("z")]).await;
    fixture.depth("a", 2).await;
    fixture.depth("b", 2).await;
}

/// Messages wait for a consumer, also after their sender is gone.
pub async fn messages_wait_for_a_consumer(fixture: Fixture) {
    let other = fixture.again().await;
    other.queue("a", &[]).await;
    let sent = other.fill("a", 3).await;
    other.transport.close().await;
    drop(other);
    let receiver = fixture.receiver("a", 10).await;
    assert_eq!(sorted(ids(&fixture.take(&receiver, 3).await)), sorted(sent));
}

/// Names that a backend would have to quote are refused.
pub async fn bad_names_are_refused(fixture: Fixture) {
    for name in ["", "a b", "a'; drop table queue; --", "a\"b", "ä", "a\0b", &"a".repeat(129)] {
        let topology = Topology { queue: Some(name.into()), ..Topology::default() };
        let error = fixture.transport.provision(&topology).await.unwrap_err();
        assert!(error.is_invalid(), "{name:?}: {error:?}");
    }
}

/// A send-only endpoint needs no queue.
pub async fn send_only_needs_no_queue(fixture: Fixture) {
    fixture.transport.provision(&Topology::default()).await.unwrap();
    fixture.transport.health().await.unwrap();
}
