//! What the store knows of an endpoint's place in Kafka, and what happens when the group is set back or a topic is another
//! one. The broker's address is in `SAGABUS_KAFKA_URL`.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod kafka_support;

use async_trait::async_trait;
use kafka_support::{KafkaHarness, PARTITIONS, raw_config};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use sagabus_core::{
    Delivery, Error, ErrorKind, LogPartition, MessageId, OffsetStore, Position, PositionReset, ReceiveOptions,
    Receiver, Result, Runtime, Settle, Settlement, Store, StoreAdmin,
};
use sagabus_outbox::memory::MemoryStore;
use sagabus_testkit::transport::{Fixture, TransportHarness};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    harness: Arc<KafkaHarness>,
    bed: Fixture,
    store: MemoryStore,
}

impl World {
    async fn new() -> Self {
        Self::over("").await
    }

    async fn over(parameters: &str) -> Self {
        let harness = Arc::new(KafkaHarness::new());
        let transport = harness.process(parameters).await.0;
        let bed = Fixture::new(harness.clone(), transport);
        bed.queue("q", &[]).await;
        Self { harness, bed, store: MemoryStore::new(Runtime::system()) }
    }

    async fn receive_by(&self, bed: &Fixture, positions: Arc<dyn OffsetStore>) -> Arc<dyn Receiver> {
        let options = ReceiveOptions { offsets: Some(positions), ..bed.options("q", 1000) };
        bed.transport.receive(options).await.unwrap()
    }

    async fn receiver(&self) -> Arc<dyn Receiver> {
        self.receive_by(&self.bed, kept(&self.store)).await
    }

    async fn positions(&self) -> BTreeMap<i32, Position> {
        let all = StoreAdmin::positions(&self.store, "q").await.unwrap();
        all.into_iter().map(|position| (position.partition.partition, position)).collect()
    }

    async fn bases(&self) -> BTreeMap<i32, i64> {
        self.positions().await.into_iter().map(|(partition, position)| (partition, position.handled_below)).collect()
    }

    fn topic(&self) -> String {
        self.harness.topic("q")
    }

    fn group(&self) -> String {
        format!("{}q", self.harness.prefix)
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = raw_config();
        config.set("group.id", self.group());
        config.create().unwrap()
    }

    fn committed(&self) -> BTreeMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic(), 0, i32::from(PARTITIONS) - 1);
        let list = self.consumer().committed_offsets(list, PATIENCE).unwrap();
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        list.elements().iter().map(|e| (e.partition(), offset(e.offset()))).collect()
    }

    /// What Kafka's own tool does while nobody is in the group.
    fn set_back(&self, to: i64) {
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::from(PARTITIONS) {
            list.add_partition_offset(&self.topic(), partition, Offset::Offset(to)).unwrap();
        }
        self.consumer().commit(&list, CommitMode::Sync).unwrap();
    }

    /// Takes, settles and stops cleanly.
    async fn handle(&self, count: usize) -> BTreeSet<MessageId> {
        let receiver = self.receiver().await;
        let got = self.bed.take(&receiver, count).await;
        settle(&receiver, &got).await;
        receiver.close().await;
        ids(&got)
    }

    /// Why a receiver hands out nothing.
    async fn refusal(&self) -> String {
        let receiver = self.receiver().await;
        let answer = self.bed.runtime.timeout(PATIENCE, receiver.next(10)).await.expect("an answer");
        let error = answer.expect_err("nothing is handed out");
        assert!(!error.is_transient(), "{error:?}");
        let health = self.bed.transport.health().await.unwrap_err();
        assert_eq!(health.to_string(), error.to_string());
        receiver.close().await;
        error.to_string()
    }

    async fn reset(&self, to: i64) -> u64 {
        let log = format!("kafka:{}", self.topic());
        let reset = PositionReset { log, partition: None, to, by: "ann".into(), why: "a test".into() };
        self.store.reset_positions("q", &reset).await.unwrap()
    }
}

fn kept(store: &MemoryStore) -> Arc<dyn OffsetStore> {
    Store::offsets(store).expect("a store keeps positions")
}

async fn settle(receiver: &Arc<dyn Receiver>, deliveries: &[Delivery]) {
    let done = |d: &Delivery| Settlement { token: d.token, settle: Settle::Done };
    receiver.settle(deliveries.iter().map(done).collect()).await.unwrap();
}

fn ids(deliveries: &[Delivery]) -> BTreeSet<MessageId> {
    deliveries.iter().map(|d| d.message.headers.message_id).collect()
}

fn admin() -> AdminClient<DefaultClientContext> {
    raw_config().create().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_set_back_halts_until_somebody_says_that_it_is_meant() {
    let world = World::new().await;
    world.bed.fill("q", 60).await;
    let first = world.handle(60).await;
    let bases = world.bases().await;
    assert_eq!((bases.values().sum::<i64>(), &bases), (60, &world.committed()), "a clean stop leaves no gap");

    world.set_back(0);
    let text = world.refusal().await;
    for part in [
        format!("topic {}", world.topic()),
        format!("the offset of group {} is 0", world.group()),
        format!("position reset q kafka:{} ", world.topic()),
        "everything below".into(),
    ] {
        assert!(text.contains(&part), "{text} lacks {part}");
    }
    assert_eq!(world.bases().await, bases);
    // whoever sets it to where it was goes on, with nothing twice
    for (partition, base) in &bases {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&world.topic(), *partition, Offset::Offset(*base)).unwrap();
        world.consumer().commit(&list, CommitMode::Sync).unwrap();
    }
    let new = world.bed.fill("q", 10).await;
    assert_eq!(world.handle(10).await, new.into_iter().collect());

    world.set_back(0);
    assert!(world.refusal().await.contains("was set back"));
    assert_eq!(world.reset(0).await, u64::from(PARTITIONS));
    assert!(world.handle(70).await.is_superset(&first), "a replay that is meant");
    assert_eq!(world.bases().await.values().sum::<i64>(), 70);
    let audit = world.store.audit("q", 0, 100).await.unwrap();
    assert_eq!(audit.len(), usize::from(PARTITIONS));
    assert_eq!(audit.iter().map(|entry| entry.before.parse::<i64>().unwrap()).sum::<i64>(), 70);
    world.harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_base_follows_what_is_committed_and_is_never_ahead() {
    let world = World::new().await;
    world.bed.fill("q", 600).await;
    let receiver = world.receiver().await;
    let mut open = world.bed.take(&receiver, 600).await;
    while !open.is_empty() {
        let (done, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|_| world.bed.runtime.random() % 3 == 0);
        settle(&receiver, &done).await;
        open = rest;
        for _ in 0..3 {
            let bases = world.bases().await;
            let committed = world.committed();
            assert!(bases.iter().all(|(n, base)| *base <= committed[n]), "{bases:?} beyond {committed:?}");
            world.bed.runtime.sleep(Duration::from_millis(50)).await; // some rounds of commits
        }
    }
    world
        .bed
        .eventually("the store knows it all, without a stop", async || {
            (world.bases().await.values().sum::<i64>() == 600).then_some(())
        })
        .await;
    assert_eq!(world.bases().await, world.committed());
    receiver.close().await;
    world.harness.close().await;
}

/// A broker answers a request with one batch that is larger than what was asked for, and no second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_do_not_keep_an_endpoint_from_starting() {
    const PARTITIONS: usize = 16;
    let world = World::over("partitions=16").await;
    let runtime = &world.bed.runtime;
    let noise = || (0..100_000 / 8).flat_map(|_| runtime.random().to_le_bytes()).collect::<Vec<u8>>();
    let mut expected = 0;
    let mut taken = BTreeSet::new();
    // until each partition has some, in batches of their own
    while taken.len() < PARTITIONS || expected < 6 * PARTITIONS {
        let key = format!("key {expected}");
        let mut message = world.bed.keyed(&key, 0..1).remove(0);
        message.body = noise().into();
        world.bed.send("q", vec![message]).await;
        expected += 1;
        if expected % PARTITIONS == 0 {
            world.handle(PARTITIONS).await;
            taken = world.bases().await.into_iter().filter(|(_, base)| *base > 0).map(|(n, _)| n).collect();
        }
    }
    let started = runtime.elapsed();
    let new = world.bed.fill("q", 1).await;
    assert_eq!(world.handle(1).await, new.into_iter().collect());
    let took = runtime.elapsed() - started;
    assert!(took < Duration::from_secs(5), "one after the other, a second each: {took:?}");
    world.harness.close().await;
}

/// A store that is out of reach for what is written, or loses the answer.
struct Deaf {
    inner: Arc<dyn OffsetStore>,
    asked: AtomicU32,
    late: AtomicBool,
}

#[async_trait]
impl OffsetStore for Deaf {
    async fn claim(&self, endpoint: &str, places: &[LogPartition]) -> Result<Vec<Position>> {
        self.inner.claim(endpoint, places).await
    }

    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.late.load(Ordering::SeqCst) {
            self.inner.advance(endpoint, positions).await?;
        }
        Err(Error::new(ErrorKind::Unknown, "lost"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_between_commit_and_position_stops_nobody() {
    let world = World::new().await;
    let inner = kept(&world.store);
    let deaf = Arc::new(Deaf { inner, asked: AtomicU32::new(0), late: AtomicBool::new(false) });
    let mut sent = BTreeSet::new();
    let mut done = BTreeSet::new();
    for round in 0..8 {
        sent.extend(world.bed.fill("q", 40).await);
        deaf.late.store(round % 2 == 0, Ordering::SeqCst);
        let receiver = world.receive_by(&world.bed, deaf.clone()).await;
        let mut got = 0;
        while got < 30 {
            let next = world.bed.runtime.timeout(PATIENCE, receiver.next(50)).await.expect("something");
            let next = next.expect("nothing halts");
            got += next.len();
            settle(&receiver, &next).await;
            done.extend(ids(&next));
        }
        if round % 4 > 1 {
            let before = deaf.asked.load(Ordering::SeqCst);
            world
                .bed
                .eventually("positions are told", async || (deaf.asked.load(Ordering::SeqCst) > before).then_some(()))
                .await;
        }
        // a crash
        drop(receiver);
        let committed = world.committed();
        assert!(world.bases().await.iter().all(|(n, base)| *base <= committed[n]));
    }
    sent.extend(world.bed.fill("q", 40).await);
    let receiver = world.receiver().await;
    while done.len() < sent.len() {
        let next =
            world.bed.runtime.timeout(PATIENCE, receiver.next(50)).await.expect("the rest").expect("nothing halts");
        settle(&receiver, &next).await;
        done.extend(ids(&next));
    }
    assert_eq!(done, sent);
    receiver.close().await;
    assert_eq!(world.bases().await, world.committed());
    world.harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_moves_the_fence() {
    let world = World::new().await;
    world.bed.fill("q", 120).await;
    let one = world.receiver().await;
    let got = world.bed.take(&one, 120).await;
    settle(&one, &got).await;
    let before = world
        .bed
        .eventually("the store knows", async || {
            let positions = world.positions().await;
            (positions.values().map(|p| p.handled_below).sum::<i64>() == 120).then_some(positions)
        })
        .await;
    let other = world.bed.again().await;
    let two = world.receive_by(&other, kept(&world.store)).await;
    let after = world
        .bed
        .eventually("half of them have moved", async || {
            let after = world.positions().await;
            let moved = after.iter().filter(|(n, position)| position.epoch > before[n].epoch).count();
            (moved == usize::from(PARTITIONS) / 2).then_some(after)
        })
        .await;
    // what the first owner still had on its way
    let late: Vec<Position> =
        before.values().map(|p| Position { handled_below: p.handled_below + 1000, ..p.clone() }).collect();
    let stays: Vec<bool> = late.iter().map(|p| after[&p.partition.partition].epoch == p.epoch).collect();
    let moved: Vec<Position> = late.iter().zip(&stays).filter(|(_, stays)| !**stays).map(|(p, _)| p.clone()).collect();
    assert_eq!(kept(&world.store).advance("q", &moved).await.unwrap(), vec![false; moved.len()]);
    assert_eq!(world.bases().await, before.iter().map(|(n, p)| (*n, p.handled_below)).collect());
    // both go on, each with its own
    world.bed.fill("q", 120).await;
    let mut seen = 0;
    while seen < 120 {
        for receiver in [&one, &two] {
            let next = world.bed.runtime.timeout(Duration::from_millis(200), receiver.next(200)).await;
            let Some(next) = next else { continue };
            let next = next.unwrap();
            settle(receiver, &next).await;
            seen += next.len();
        }
    }
    world
        .bed
        .eventually("the store knows all", async || (world.bases().await.values().sum::<i64>() == 240).then_some(()))
        .await;
    one.close().await;
    two.close().await;
    world.harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_forgotten_goes_on_where_the_store_says() {
    let world = World::new().await;
    world.bed.fill("q", 60).await;
    world.handle(60).await;
    // what the broker does after seven empty days
    let group = world.group();
    let gone = world
        .bed
        .eventually("the group is removed", async || {
            let done = admin().delete_groups(&[&group], &AdminOptions::new()).await.unwrap();
            done[0].is_ok().then_some(true)
        })
        .await;
    assert!(gone && world.committed().values().all(|offset| *offset == 0));
    let new = world.bed.fill("q", 20).await;
    assert_eq!(world.handle(20).await, new.into_iter().collect(), "nothing is lost, and nothing comes again");
    world.harness.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_topic_of_the_same_name_is_noticed_before_and_after_it_has_grown() {
    let world = World::new().await;
    // keys spread them over all partitions, and the same ones spread what comes later
    let keyed = |n: u32| (0..n).flat_map(|n| world.bed.keyed(&format!("key {}", n % 120), n..n + 1)).collect();
    world.bed.send("q", keyed(120)).await;
    world.handle(120).await;
    let topic = world.topic();
    assert!(admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].is_ok());
    let consumer = world.consumer();
    world
        .bed
        .eventually("the topic is gone", async || {
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
            metadata.topics().iter().all(|found| found.partitions().is_empty()).then_some(())
        })
        .await;
    // another process, which has not seen the old one
    let fresh = world.bed.again().await;
    fresh.queue("q", &[]).await;
    let text = world.refusal().await;
    assert!(text.contains("it ends at 0") && text.contains("made again"), "{text}");
    fresh.send("q", keyed(600)).await;
    let text = world.refusal().await;
    assert!(text.contains("other messages") && text.contains("made again"), "{text}");
    assert_eq!(world.reset(0).await, u64::from(PARTITIONS));
    world.set_back(0);
    assert_eq!(world.handle(600).await.len(), 600);
    world.harness.close().await;
}
