//! What a real broker, other clients and a bad network do to the Kafka transport. The broker's address is in
//! `SAGABUS_KAFKA_URL`.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod kafka_support;

use kafka_support::{KafkaHarness, place, raw_config};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Message, OwnedHeaders},
};
use sagabus_core::{
    Delivery, Destination, Error, Intent, MessageId, Outgoing, Receiver, Runtime, SendOutcome, Settle, Settlement,
    Topology, Transport, UserHeader,
};
use sagabus_testkit::transport::{Fixture, TransportHarness};
use sagabus_transports::kafka::{KafkaOptions, KafkaTransport};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn bed() -> (Arc<KafkaHarness>, Fixture) {
    let harness = Arc::new(KafkaHarness::new());
    let transport = harness.open().await;
    (harness.clone(), Fixture::new(harness, transport))
}

async fn settle(receiver: &Arc<dyn Receiver>, deliveries: &[Delivery], settle: Settle) {
    receiver.settle(deliveries.iter().map(|d| Settlement { token: d.token, settle }).collect()).await.unwrap();
}

fn admin() -> AdminClient<DefaultClientContext> {
    raw_config().create().unwrap()
}

/// What the group has committed, asked by a client of its own.
fn committed(group: &str, topic: &str) -> BTreeMap<i32, i64> {
    let mut config = raw_config();
    config.set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, i32::from(kafka_support::PARTITIONS) - 1);
    let list = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    list.elements().iter().map(|e| (e.partition(), offset(e.offset()))).collect()
}

/// All records of a topic: partition, offset, key.
fn records(topic: &str, count: usize) -> Vec<(i32, i64, Vec<u8>)> {
    let mut config = raw_config();
    config.set("group.id", "nobody").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(kafka_support::PARTITIONS) {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let record = consumer.poll(PATIENCE).expect("more records").unwrap();
        all.push((record.partition(), record.offset(), record.key().unwrap_or_default().to_vec()));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_clients_are_understood_or_say_why_not() {
    let (harness, bed) = bed().await;
    bed.queue("q", &["kit.event"]).await;
    let (commands, events) = (harness.topic("q"), format!("{}evt.kit.event", harness.prefix));
    harness.write(&commands, Some(b"k"), None, OwnedHeaders::new());
    harness.write(&commands, Some(b"k"), Some(b"{}"), OwnedHeaders::new());
    harness.write(&events, Some(b"order-1"), Some(b"{}"), OwnedHeaders::new());
    harness.write(&events, Some(b"\xff"), Some(b"{}"), OwnedHeaders::new());
    let own = OwnedHeaders::new()
        .insert(Header { key: "sagabus-type", value: Some("kit.other") })
        .insert(Header { key: "sagabus-id", value: Some("order 17") })
        .insert(Header { key: "sagabus-sent-at", value: Some("5") })
        .insert(Header { key: "sagabus-causation-id", value: Some("order 16") })
        .insert(Header { key: "sagabus-first", value: Some("1") })
        .insert(Header { key: "tenant", value: Some("a") })
        .insert(Header { key: "tenant", value: Some("b") })
        .insert(Header::<&str> { key: "nothing", value: None });
    harness.write(&commands, Some(b"k"), Some(b"{}"), own);
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 5).await;
    let defects: BTreeSet<String> = got.iter().filter_map(|d| d.defect.clone()).collect();
    assert!(defects.iter().any(|d| d.contains("sagabus-type")), "{defects:?}");
    assert_eq!(got.iter().filter(|d| d.defect.is_some()).count(), 2);
    let of =
        |kind: &'static str| got.iter().filter(move |d| d.defect.is_none() && d.message.headers.message_type == kind);
    let events: Vec<_> = of("kit.event").map(|d| &d.message.headers).collect();
    assert!(events.iter().all(|headers| headers.intent == Intent::Event) && events.len() == 2);
    let keys: BTreeSet<_> = events.iter().map(|headers| headers.order_key.as_deref()).collect();
    assert_eq!(keys, BTreeSet::from([None, Some("order-1")]), "a key that is no text is none");
    let own = &of("kit.other").next().expect("ours").message.headers;
    assert_eq!(own.message_id, MessageId::from_foreign("order 17"));
    assert_eq!((own.user["tenant"].value.as_str(), own.user["nothing"].value.as_str()), ("b", ""));
    let cause = MessageId::from_foreign("order 16");
    assert_eq!(
        (own.sent_at.0, own.causation_id, own.conversation_id, own.first_attempt),
        (5, Some(cause), cause.0, true)
    );
    assert_eq!(own.order_key, None, "the record's key is ours to choose");
    // the same ids when it is read again, by another process
    drop(receiver);
    let again = bed.again().await.receiver("q", 10).await;
    let ids = |got: &[Delivery]| got.iter().map(|d| d.message.headers.message_id).collect::<BTreeSet<_>>();
    assert_eq!(ids(&bed.take(&again, 5).await), ids(&got));
    assert_eq!(ids(&got).len(), 5);
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_the_partition_that_java_gives_it() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    // murmur2 as org.apache.kafka.common.utils.Utils computes it; these values are in Kafka's own tests
    let expected: [(&str, i64); 4] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("abc", 479_470_107),
        ("a-little-bit-long-string", -985_981_536),
    ];
    for (key, _) in expected {
        bed.send("q", bed.keyed(key, 0..3)).await;
    }
    let records = records(&harness.topic("q"), 12);
    for (key, hash) in expected {
        let positive = u32::try_from(hash & 0xffff_ffff).unwrap() & 0x7fff_ffff;
        let wanted = i32::try_from(positive % u32::from(kafka_support::PARTITIONS)).unwrap();
        let found: BTreeSet<i32> = records.iter().filter(|r| r.2 == key.as_bytes()).map(|r| r.0).collect();
        assert_eq!(found, BTreeSet::from([wanted]), "{key}");
    }
    harness.close().await;
}

/// The broker refuses a request as a whole, also where each message in it would fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_together_is_sent_alone() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    let topic = harness.topic("q");
    let smaller = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "60000");
    assert!(admin().alter_configs(&[smaller], &AdminOptions::new()).await.unwrap()[0].is_ok());
    let noise = |bytes: usize| (0..bytes / 8).flat_map(|_| bed.runtime.random().to_le_bytes()).collect::<Vec<u8>>();
    let sized = |n: usize, bytes: usize| {
        // one key, so one partition
        let mut message = bed.keyed("key", 0..1).remove(0);
        let value = UserHeader { value: n.to_string(), propagate: false };
        message.headers.user.insert("n".into(), value);
        message.body = noise(bytes).into();
        Outgoing { to: Destination::Queue("q".into()), message }
    };
    let mut batch: Vec<Outgoing> = (0..40).map(|n| sized(n, 10_000)).collect();
    batch.push(sized(40, 80_000));
    let outcomes = bed.transport.send_batch(&batch).await;
    assert!(outcomes[..40].iter().all(|outcome| matches!(outcome, SendOutcome::Done)), "{outcomes:?}");
    assert!(matches!(&outcomes[40], SendOutcome::Unroutable(why) if why.contains("too large")), "{:?}", outcomes[40]);
    let receiver = bed.receiver("q", 100).await;
    let got: Vec<String> =
        bed.take(&receiver, 40).await.iter().map(|d| d.message.headers.user["n"].value.clone()).collect();
    assert_eq!(got, (0..40).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, in order");
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_committed_offset_passes_what_is_unfinished() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    // a key each, by which its record is known
    bed.send("q", (0..600).flat_map(|n| bed.keyed(&format!("key {n}"), 0..1)).collect()).await;
    let receiver = bed.receiver("q", 600).await;
    let got = bed.take(&receiver, 600).await;
    let by_key: BTreeMap<Vec<u8>, (i32, i64)> =
        records(&harness.topic("q"), 600).into_iter().map(|(p, o, key)| (key, (p, o))).collect();
    let place = |d: &Delivery| by_key[d.message.headers.order_key.as_deref().expect("a key").as_bytes()];
    // random ones stay open
    let (open, done): (Vec<_>, Vec<_>) = got.into_iter().partition(|_| bed.runtime.random() % 20 == 0);
    settle(&receiver, &done, Settle::Done).await;
    bed.depth("q", open.len() as u64).await;
    let lowest = |partition| open.iter().map(place).filter(|(p, _)| *p == partition).map(|(_, o)| o).min();
    let group = format!("{}q", harness.prefix);
    for (partition, offset) in committed(&group, &harness.topic("q")) {
        let end = by_key.values().filter(|(p, _)| *p == partition).count();
        assert_eq!(offset, lowest(partition).unwrap_or(i64::try_from(end).unwrap()), "partition {partition}");
    }
    // whoever comes next gets exactly what was left
    drop(receiver);
    let next = bed.again().await.receiver("q", 600).await;
    let rest = bed.take(&next, open.len()).await;
    let ids = |all: &[Delivery]| all.iter().map(|d| d.message.headers.message_id).collect::<BTreeSet<_>>();
    assert_eq!(ids(&rest), ids(&open));
    assert!(rest.iter().all(|d| d.suspect));
    settle(&next, &rest, Settle::Done).await;
    bed.depth("q", 0).await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_would_lose_messages_are_refused() {
    let (harness, bed) = bed().await;
    let make = async |queue: &str, name: &str, value: &str| {
        let topic = harness.topic(queue);
        let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1)).set(name, value);
        admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    };
    make("compacted", "cleanup.policy", "compact").await;
    make("small", "max.message.bytes", "1000").await;
    let provision = async |transport: &dyn Transport, queue: &str| -> Error {
        let topology = Topology { queue: Some(queue.into()), ..Topology::default() };
        transport.provision(&topology).await.unwrap_err()
    };
    for (queue, says) in [("compacted", "cleanup.policy"), ("small", "max.message.bytes")] {
        let error = provision(&*bed.transport, queue).await;
        assert!(error.is_invalid() && error.to_string().contains(says), "{error:?}");
    }
    let (strict, _proxy) = harness.process("create=no").await;
    let error = provision(&*strict, "nowhere").await;
    assert!(error.is_not_found() && error.to_string().contains("cmd.nowhere"), "{error:?}");
    let error = bed.transport.receive(bed.options("nowhere", 1)).await.err().unwrap();
    assert!(error.is_not_found(), "{error:?}");
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_were_removed_unread_halt_the_receiver() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    bed.fill("q", 60).await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 60).await;
    settle(&receiver, &got[..5], Settle::Done).await;
    receiver.close().await;
    // what retention does, at once
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(kafka_support::PARTITIONS) {
        list.add_partition_offset(&harness.topic("q"), partition, Offset::End).unwrap();
    }
    admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    let next = bed.receiver("q", 100).await;
    let error = bed.runtime.timeout(PATIENCE, next.next(10)).await.expect("an answer").unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("retention"), "{error:?}");
    assert!(bed.transport.health().await.is_err());
    next.close().await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_the_outcome_is_unknown_and_the_copy_has_the_same_id() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    let (process, proxy) = harness.process("send_timeout=2").await;
    let to = sagabus_core::Destination::Queue("q".into());
    let outgoing = |message| sagabus_core::Outgoing { to: to.clone(), message };
    assert!(process.send_batch(&[outgoing(bed.message("first"))]).await[0].is_done());
    let message = bed.message("second");
    proxy.freeze_answers(true);
    let outcome = process.send_batch(&[outgoing(message.clone())]).await.remove(0);
    assert!(matches!(&outcome, SendOutcome::Unknown(error) if error.is_unknown()), "{outcome:?}");
    proxy.freeze_answers(false);
    // it goes on with whatever producer it takes
    bed.eventually("a send that is done", async || {
        process.send_batch(&[outgoing(message.clone())]).await[0].is_done().then_some(())
    })
    .await;
    let receiver = bed.receiver("q", 100).await;
    let got = bed.take(&receiver, 2).await;
    let ids: BTreeSet<_> = got.iter().map(|d| d.message.headers.message_id).collect();
    assert!(ids.contains(&message.headers.message_id) || got.len() > 2);
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_and_double_nothing_that_was_confirmed() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    let (process, proxy) = harness.process("").await;
    let sender = Fixture { transport: process, ..bed.clone() };
    let sending = bed.runtime.spawn(async move {
        let mut sent = Vec::new();
        for _ in 0..60 {
            sent.extend(sender.fill("q", 50).await);
        }
        sent
    });
    while !sending.is_finished() {
        bed.runtime.sleep(Duration::from_millis(20)).await; // a kill now and then
        proxy.kill();
    }
    let sent = sending.join().await.expect("no panic");
    let receiver = bed.receiver("q", 500).await;
    let seen = bed.drain(&receiver, &sent).await;
    assert_eq!(seen.len(), sent.len());
    assert!(seen.values().all(|n| *n == 1), "the producer is idempotent");
    bed.depth("q", 0).await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_and_go_lose_nothing_and_keep_the_order() {
    let (harness, bed) = bed().await;
    bed.queue("q", &[]).await;
    let log: Arc<std::sync::Mutex<Vec<(String, u32)>>> = Arc::default();
    let consume = async |bed: &Fixture| {
        let (receiver, _) = bed.ordered("q", 50).await;
        let (log, bed, taking) = (log.clone(), bed.clone(), receiver.clone());
        let task = bed.runtime.clone().spawn(async move {
            while let Ok(got) = taking.next(10).await {
                for d in &got {
                    let key = d.message.headers.order_key.clone().unwrap();
                    let number = std::str::from_utf8(&d.message.body).unwrap().parse().unwrap();
                    log.lock().unwrap().push((key, number));
                }
                bed.runtime.sleep(Duration::from_millis(5)).await; // the handler
                settle(&taking, &got, Settle::Done).await;
            }
        });
        (receiver, task)
    };
    let steady = consume(&bed).await;
    let mut numbers = 0;
    for _ in 0..4 {
        let other = bed.again().await;
        let (receiver, task) = consume(&other).await;
        for _ in 0..20 {
            let batch = (0..20).flat_map(|key| bed.keyed(&format!("key-{key}"), numbers..numbers + 2)).collect();
            bed.send("q", batch).await;
            numbers += 2;
            bed.runtime.sleep(Duration::from_millis(50)).await; // two seconds per visit
        }
        receiver.stop().await;
        task.join().await;
        receiver.close().await;
        other.transport.close().await;
    }
    bed.depth("q", 0).await;
    steady.0.stop().await;
    steady.1.join().await;
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (key, number) in log.lock().unwrap().drain(..) {
        seen.entry(key).or_default().push(number);
    }
    assert_eq!(seen.len(), 20);
    for (key, all) in seen {
        assert_eq!(all, (0..numbers).collect::<Vec<u32>>(), "{key}");
    }
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_is_told_without_secrets() {
    let url = "kafka://me:hunter2@127.0.0.1:9/?connect_timeout=1";
    let error = KafkaTransport::connect(url, KafkaOptions::new(Runtime::system())).await.err().unwrap();
    assert!(error.is_transient(), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    // the broker here asks for no password, and does not understand the question
    let url = format!("kafka://me:hunter2@{}/?connect_timeout=2", place());
    let error = KafkaTransport::connect(&url, KafkaOptions::new(Runtime::system())).await.err().unwrap();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_partitions_are_refused_if_a_number_was_asked_for() {
    let prefix = kafka_support::fresh_prefix();
    let topology = Topology { queue: Some("q".into()), ..Topology::default() };
    let topic = format!("{prefix}cmd.q");
    let new = NewTopic::new(&topic, 3, TopicReplication::Fixed(1)).set("max.message.bytes", "2000000");
    admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let connect = async |parameters: &str| {
        let url = format!("kafka://{}/?prefix={prefix}{parameters}", place());
        KafkaTransport::connect(&url, KafkaOptions::new(Runtime::system())).await.unwrap()
    };
    let error = connect("&partitions=4").await.provision(&topology).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_invalid() && text.contains(&topic) && text.contains("has 3") && text.contains("asks for 4"),
        "{text}"
    );
    for fits in ["", "&partitions=3", "&partitions=2"] {
        connect(fits).await.provision(&topology).await.unwrap();
    }
    admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
}
