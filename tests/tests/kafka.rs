//! Whole endpoints on a real Kafka broker and a SQLite file. The broker's address is in `SAGABUS_KAFKA_URL`.
#![cfg(feature = "kafka")]
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests on real backends: real time and tasks; a failing step is a failing test"
)]

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use sagabus::{
    EndpointBuilder, Recoverability, RunningEndpoint, SendOptions,
    admin::Cursor,
    admin::{DeadLetter, PositionReset},
    prelude::*,
    sqlx,
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const PARTITIONS: i32 = 4;

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "kafka.work")]
struct Work {
    key: String,
    n: i64,
}

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "kafka.happened")]
struct Happened {
    n: i64,
}

/// Writes a row of its own for each message. The table has no unique constraint: what runs twice is seen twice.
#[derive(Clone)]
struct Ledger {
    refuse: Arc<AtomicBool>,
}

impl Consume<Work> for Ledger {
    async fn consume(&self, m: Work, ctx: &mut Context) -> Result {
        if m.key == "bad" && self.refuse.load(Ordering::SeqCst) {
            return Err(HandlerError::new("not this one"));
        }
        write(ctx, &m.key, m.n).await?;
        ctx.publish(Happened { n: m.n });
        Ok(())
    }
}

impl Consume<Happened> for Ledger {
    async fn consume(&self, m: Happened, ctx: &mut Context) -> Result {
        write(ctx, "happened", m.n).await
    }
}

async fn write(ctx: &mut Context, key: &str, n: i64) -> Result {
    let connection = ctx.transaction::<Sqlite>().await?;
    sqlx::query("insert into effect (key, n) values (?, ?)").bind(key).bind(n).execute(&mut *connection).await?;
    Ok(())
}

struct Bed {
    broker: String,
    prefix: String,
    dir: PathBuf,
    ledger: Ledger,
}

impl Bed {
    async fn new() -> Self {
        let url = std::env::var("SAGABUS_KAFKA_URL").expect("SAGABUS_KAFKA_URL is not set");
        let id = uuid::Uuid::now_v7().simple().to_string();
        let dir = std::env::temp_dir().join(format!("sagabus-kafka-{id}"));
        std::fs::create_dir_all(&dir).unwrap();
        let broker = url.trim_start_matches("kafka://").trim_end_matches('/').to_string();
        let bed = Self { broker, prefix: format!("e2e-{id}."), dir, ledger: Ledger { refuse: Arc::default() } };
        bed.sql().await.execute("create table effect (key text, n integer)").await.unwrap();
        bed
    }

    async fn sql(&self) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.dir.join("shop.db"))
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(20));
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// How often each (key, number) was written.
    async fn effects(&self) -> BTreeMap<(String, i64), i64> {
        let query = "select key, n, count(*) from effect group by key, n";
        let rows = sqlx::query(query).fetch_all(&mut self.sql().await).await.unwrap();
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }

    fn shop(&self) -> EndpointBuilder {
        let ledger = self.ledger.clone();
        Endpoint::builder("shop")
            .transport(format!("kafka://{}/?prefix={}&partitions={PARTITIONS}", self.broker, self.prefix))
            .store(format!("sqlite://{}", self.dir.join("shop.db").display()))
            .recoverability(Recoverability {
                immediate: 1,
                pause: Duration::from_millis(2),
                delays: vec![Duration::from_secs(2)],
                ..Recoverability::default()
            })
            .service(ledger, |s| s.on::<Work>().on::<Happened>())
            .route::<Work>("shop")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.broker).set("group.id", format!("{}shop", self.prefix));
        config
    }

    fn topics(&self) -> [String; 2] {
        [format!("{}cmd.shop", self.prefix), format!("{}evt.kafka.happened", self.prefix)]
    }

    /// What other clients write.
    fn raw(&self, body: Option<&[u8]>, key: &[u8]) {
        let producer: ThreadedProducer<DefaultProducerContext> = self.config().create().unwrap();
        let topic = self.topics()[0].clone();
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(key);
        record.payload = body;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    }

    /// Puts the group back to the start of everything, with what Kafka's own tool does.
    fn rewind(&self) {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let mut list = TopicPartitionList::new();
        for topic in self.topics() {
            for partition in 0..PARTITIONS {
                list.add_partition_offset(&topic, partition, Offset::Offset(0)).unwrap();
            }
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// The endpoint starts, and says what is wrong instead of receiving.
    async fn refused(&self) {
        let shop = start(self.shop()).await;
        eventually("it says that the group was set back", async || {
            let problems = shop.health().await.problems;
            let says = |part: &str| problems.iter().any(|problem| problem.contains(part));
            if says("set back") && says("position reset shop kafka:") { Ok(()) } else { Err(format!("{problems:?}")) }
        })
        .await;
        assert_eq!(shop.stats().received, 0);
        shop.stop().await.unwrap();
    }

    /// What an operator does who means it.
    async fn allow(&self) {
        let shop = self.shop().build().await.unwrap();
        let admin = shop.admin().expect("a store");
        for topic in self.topics() {
            let log = format!("kafka:{topic}");
            let reset = PositionReset { log, partition: None, to: 0, by: "ann".into(), why: "a replay".into() };
            assert_eq!(admin.reset_positions(&reset).await.unwrap(), 4);
        }
        let audit = admin.audit(&Cursor::start(), 100).await.unwrap().items;
        assert!(audit.len() == 8 && audit.iter().all(|entry| entry.by == "ann" && entry.after == "0"), "{audit:?}");
    }

    /// How many records the group has not finished.
    fn lag(&self) -> i64 {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let mut lag = 0;
        for topic in self.topics() {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS - 1);
            let list = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
            for element in list.elements() {
                let patience = Duration::from_secs(10);
                let (_, end) = consumer.fetch_watermarks(&topic, element.partition(), patience).unwrap();
                lag += end - element.offset().to_raw().unwrap_or(0).max(0);
            }
        }
        lag
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // what the endpoints still hold open goes with the process
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn start(builder: EndpointBuilder) -> RunningEndpoint {
    builder.build().await.expect("build").start().await.expect("start")
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> std::result::Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if Instant::now() > deadline => panic!("not so: {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn dead(shop: &RunningEndpoint) -> Vec<DeadLetter> {
    shop.admin().expect("a store").dead_letters(&Cursor::start(), 100).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_stops_until_it_is_allowed_and_repeats_no_effect_within_the_horizon() {
    let bed = Bed::new().await;
    let shop = start(bed.shop()).await;
    for n in 0..300 {
        let id = shop.bus().send(Work { key: "good".into(), n }).await.unwrap();
        if n % 10 == 0 {
            shop.bus().send_with(Work { key: "good".into(), n }, SendOptions::new().id(id)).await.unwrap();
        }
    }
    let all = async || {
        let effects = bed.effects().await;
        if effects.len() == 600 && bed.lag() == 0 { Ok(()) } else { Err(format!("{} effects", effects.len())) }
    };
    eventually("300 messages and 300 events are handled", all).await;
    assert!(shop.stats().duplicates >= 30, "{:?}", shop.stats());
    shop.stop().await.unwrap();
    assert!(bed.effects().await.values().all(|count| *count == 1));

    bed.rewind();
    assert_eq!(bed.lag(), 630);
    bed.refused().await;
    bed.allow().await;
    let shop = start(bed.shop()).await;
    eventually("everything was read again", async || match bed.lag() {
        0 => Ok(()),
        lag => Err(format!("{lag} to go")),
    })
    .await;
    // of two copies that are there at the same time, only one gets as far as the inbox
    let stats = shop.stats();
    assert!(stats.received >= 630 && stats.handled == 0 && stats.duplicates >= 600, "{stats:?}");
    shop.stop().await.unwrap();
    let effects = bed.effects().await;
    assert!(effects.len() == 600 && effects.values().all(|count| *count == 1), "{effects:?}");
}

/// The inbox has forgotten all of it. Still nothing happens twice, until somebody says that it shall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_beyond_the_horizon_repeats_no_effect_unless_it_is_allowed() {
    let bed = Bed::new().await;
    let shop = start(bed.shop()).await;
    for n in 0..100 {
        shop.bus().send(Work { key: "good".into(), n }).await.unwrap();
    }
    let all = async |times: i64| {
        let effects = bed.effects().await;
        let enough = effects.len() == 200 && effects.values().all(|count| *count >= times) && bed.lag() == 0;
        if enough { Ok(()) } else { Err(format!("{} effects", effects.len())) }
    };
    eventually("100 messages and 100 events are handled", async || all(1).await).await;
    shop.stop().await.unwrap();
    bed.sql().await.execute("delete from inbox; delete from inbox_misc").await.unwrap();
    bed.rewind();
    bed.refused().await;
    assert!(bed.effects().await.values().all(|count| *count == 1));
    assert_eq!(bed.lag(), 200, "the group is where it was set to");
    bed.allow().await;
    let shop = start(bed.shop()).await;
    // each of the messages again, and each event again and once more, since those who publish them run again
    eventually("it happens again", async || all(2).await).await;
    shop.stop().await.unwrap();
    let effects = bed.effects().await;
    assert!(effects.iter().filter(|((key, _), _)| key == "good").all(|(_, count)| *count == 2), "{effects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_delays_no_other_key_and_ends_as_dead_letters() {
    let bed = Bed::new().await;
    bed.ledger.refuse.store(true, Ordering::SeqCst);
    let shop = start(bed.shop().ordered()).await;
    let bus = shop.bus();
    for n in 0..40 {
        for key in ["bad", "a", "b", "c", "d", "e", "f", "g"] {
            bus.send_with(Work { key: key.into(), n }, SendOptions::new().key(key)).await.unwrap();
        }
        // on every key's partition, so that they lie in everybody's way
        if n == 5 {
            for key in ["bad", "a", "b", "c", "d", "e", "f", "g"] {
                bed.raw(None, key.as_bytes());
                bed.raw(Some(b"no type"), key.as_bytes());
            }
        }
    }
    eventually("all others are done while the bad key waits", async || {
        let effects = bed.effects().await;
        let of = |key: &str| effects.keys().filter(|(k, _)| k == key).count();
        let done: usize = ["a", "b", "c", "d", "e", "f", "g"].iter().map(|key| of(key)).sum();
        if done == 7 * 40 && of("bad") == 0 { Ok(()) } else { Err(format!("{done} done, {} bad", of("bad"))) }
    })
    .await;
    let letters = eventually("the poison is buried", async || {
        let letters = dead(&shop).await;
        if letters.len() >= 16 { Ok(letters) } else { Err(format!("{} dead letters", letters.len())) }
    })
    .await;
    let about = |text: &str| letters.iter().filter(|l| l.detail.iter().any(|line| line.contains(text))).count();
    assert_eq!((about("tombstone"), about("sagabus-type")), (8, 8), "{letters:?}");
    bed.ledger.refuse.store(false, Ordering::SeqCst);
    // what failed for good by now is sent again, as an operator would
    eventually("the bad key goes on, in order", async || {
        let admin = shop.admin().expect("a store");
        let bad = dead(&shop).await.into_iter().filter(|l| l.message.headers.order_key.as_deref() == Some("bad"));
        let ids: Vec<i64> = bad.filter(|l| l.attempts > 0 && !l.retrying).map(|l| l.id).collect();
        admin.retry_dead_letters(&ids).await.map_err(|e| format!("{e:?}"))?;
        let effects = bed.effects().await;
        let done = effects.keys().filter(|(key, _)| key == "bad").count();
        if done == 40 { Ok(()) } else { Err(format!("{done} of 40")) }
    })
    .await;
    // and of each number one event for each of the eight keys
    let wanted = |key: &str| if key == "happened" { 8 } else { 1 };
    eventually("each took effect once", async || {
        let effects = bed.effects().await.into_iter();
        let wrong: Vec<_> = effects.filter(|((key, _), count)| *count != wanted(key)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
    })
    .await;
    shop.stop().await.unwrap();
}
