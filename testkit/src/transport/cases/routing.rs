//! Messages reach whom they are for, and nobody else.

use crate::transport::{
    Bed,
    bed::{ids, sorted},
    cases::missing::no_topics,
};
use sagabus_core::{Destination, Outgoing, SendOutcome, Settle, Topology};

/// A command reaches its queue only.
pub async fn send_reaches_its_queue_only(bed: Bed) {
    bed.queue("a", &[]).await;
    bed.queue("b", &[]).await;
    let sent = bed.fill("a", 3).await;
    let (a, b) = (bed.receiver("a", 10).await, bed.receiver("b", 10).await);
    assert_eq!(sorted(ids(&bed.take(&a, 3).await)), sorted(sent));
    bed.nothing(&b).await;
}

/// A queue that does not exist is an answer, not an error, and not a silent loss.
pub async fn unroutable_is_told(bed: Bed) {
    bed.queue("a", &[]).await;
    let to = |queue: &str| Outgoing { to: Destination::Queue(queue.into()), message: bed.message("x") };
    let outcomes = bed.transport.send_batch(&[to("a"), to("nowhere"), to("a")]).await;
    assert!(outcomes[0].is_done() && outcomes[2].is_done(), "{outcomes:?}");
    let SendOutcome::Unroutable(text) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(text.contains("nowhere"), "{text}");
    bed.depth("a", 2).await;
}

/// Nothing to send is nothing wrong.
pub async fn an_empty_batch_is_fine(bed: Bed) {
    assert!(bed.transport.send_batch(&[]).await.is_empty());
}

/// Nobody subscribed: that is fine, and nothing is kept.
pub async fn publish_to_nobody_is_done(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("a", &["kit.other"]).await;
    bed.publish("kit.event", vec![bed.message("x")]).await;
    bed.depth("a", 0).await;
}

/// One subscriber gets one copy.
pub async fn publish_to_one(bed: Bed) {
    publish_to(&bed, 1).await;
}

/// Three subscribers get one copy each, settled on their own.
pub async fn publish_to_three(bed: Bed) {
    publish_to(&bed, 3).await;
}

async fn publish_to(bed: &Bed, count: usize) {
    if !bed.transport.capabilities().topics {
        return no_topics(bed).await;
    }
    let queues: Vec<String> = (0..count).map(|n| format!("sub-{n}")).collect();
    for queue in &queues {
        bed.queue(queue, &["kit.event"]).await;
    }
    bed.queue("bystander", &["kit.other"]).await;
    let sent = bed.publish("kit.event", (0..5).map(|n| bed.message(n.to_string())).collect()).await;
    for queue in &queues {
        let receiver = bed.receiver(queue, 10).await;
        let got = bed.take(&receiver, 5).await;
        assert_eq!(sorted(ids(&got)), sorted(sent.clone()));
        bed.settle(&receiver, &got, Settle::Done).await;
        bed.depth(queue, 0).await;
    }
    bed.depth("bystander", 0).await;
}

/// One queue with several topics, in the mixed batch of one send.
pub async fn several_topics_of_one_queue(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("a", &["kit.one", "kit.two"]).await;
    bed.queue("b", &["kit.two"]).await;
    let to = |to: Destination| Outgoing { to, message: bed.message("x") };
    let batch = [
        to(Destination::Topic("kit.one".into())),
        to(Destination::Topic("kit.two".into())),
        to(Destination::Topic("kit.three".into())),
        to(Destination::Queue("b".into())),
    ];
    assert!(bed.transport.send_batch(&batch).await.iter().all(SendOutcome::is_done));
    bed.depth("a", 2).await;
    bed.depth("b", 2).await;
}

/// A queue and a topic of the same name are two things.
pub async fn topics_are_no_queues(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("same", &[]).await;
    bed.queue("other", &["same"]).await;
    bed.publish("same", vec![bed.message("x")]).await;
    bed.depth("other", 1).await;
    bed.depth("same", 0).await;
    bed.fill("same", 2).await;
    bed.depth("same", 2).await;
    bed.depth("other", 1).await;
}

/// Two consumers of one subscriber share its copy.
pub async fn consumers_share_a_copy(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("a", &["kit.event"]).await;
    let other = bed.again().await;
    let (one, two) = (bed.receiver("a", 100).await, other.receiver("a", 100).await);
    let sent = bed.publish("kit.event", (0..20).map(|n| bed.message(n.to_string())).collect()).await;
    let mut seen = Vec::new();
    while seen.len() < sent.len() {
        for receiver in [&one, &two] {
            if let Some(got) = bed.runtime.timeout(std::time::Duration::from_millis(20), receiver.next(100)).await {
                let got = got.unwrap();
                seen.extend(ids(&got));
                bed.settle(receiver, &got, Settle::Done).await;
            }
        }
    }
    assert_eq!(sorted(seen), sorted(sent));
    bed.nothing(&one).await;
    bed.nothing(&two).await;
}

/// Provisioning again changes nothing and loses nothing.
pub async fn provisioning_again_is_harmless(bed: Bed) {
    let topics: &[&str] = if bed.transport.capabilities().topics { &["kit.event"] } else { &[] };
    bed.queue("a", topics).await;
    let sent = bed.fill("a", 3).await;
    for process in [bed.clone(), bed.again().await, bed.again().await] {
        process.queue("a", topics).await;
    }
    let receiver = bed.receiver("a", 10).await;
    assert_eq!(sorted(ids(&bed.take(&receiver, 3).await)), sorted(sent));
}

/// Many processes provision at once.
pub async fn provisioning_at_once_is_harmless(bed: Bed) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let bed = bed.clone();
            bed.runtime.clone().spawn(async move { bed.again().await.queue("a", &[]).await })
        })
        .collect();
    for task in tasks {
        task.join().await.expect("provisioning works");
    }
    bed.fill("a", 1).await;
    bed.depth("a", 1).await;
}

/// A subscription that is no longer named ends; the others stay.
pub async fn dropped_subscriptions_end(bed: Bed) {
    if !bed.transport.capabilities().topics {
        return no_topics(&bed).await;
    }
    bed.queue("a", &["kit.one", "kit.two"]).await;
    bed.queue("b", &["kit.one"]).await;
    bed.publish("kit.one", vec![bed.message("x")]).await;
    bed.depth("a", 1).await;
    bed.again().await.queue("a", &["kit.two"]).await;
    bed.publish("kit.one", vec![bed.message("y")]).await;
    bed.publish("kit.two", vec![bed.message("z")]).await;
    bed.depth("a", 2).await;
    bed.depth("b", 2).await;
}

/// Messages wait for a consumer, also after their sender is gone.
pub async fn messages_wait_for_a_consumer(bed: Bed) {
    let other = bed.again().await;
    other.queue("a", &[]).await;
    let sent = other.fill("a", 3).await;
    other.transport.close().await;
    drop(other);
    let receiver = bed.receiver("a", 10).await;
    assert_eq!(sorted(ids(&bed.take(&receiver, 3).await)), sorted(sent));
}

/// Names that a backend would have to quote are refused.
pub async fn bad_names_are_refused(bed: Bed) {
    for name in ["", "a b", "a'; drop table queue; --", "a\"b", "ä", "a\0b", &"a".repeat(129)] {
        let topology = Topology { queue: Some(name.into()), ..Topology::default() };
        let error = bed.transport.provision(&topology).await.unwrap_err();
        assert!(error.is_invalid(), "{name:?}: {error:?}");
    }
}

/// A send-only endpoint needs no queue.
pub async fn send_only_needs_no_queue(bed: Bed) {
    bed.transport.provision(&Topology::default()).await.unwrap();
    bed.transport.health().await.unwrap();
}
