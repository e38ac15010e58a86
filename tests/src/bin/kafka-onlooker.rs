//! Looks at a Kafka cluster from beside the product, with a client of its own: what lies in topics, how far groups are and
//! who is in them. It also does to a cluster what an operator may do.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use anyhow::{Context, Result};
use clap::Parser;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::Headers,
};
use sagabus::{Endpoint, admin::PositionReset};
use sagabus_tests::program;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Parser)]
struct Args {
    /// host:port
    #[arg(long)]
    servers: String,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Says every record once, and ten times a second how far the groups are; until it is killed
    Watch {
        /// `group=topic,topic`
        #[arg(long)]
        group: Vec<String>,
    },
    /// Gives topics more partitions
    Grow {
        #[arg(long, value_delimiter = ',')]
        topic: Vec<String>,
        /// How many they have then
        #[arg(long)]
        to: usize,
    },
    /// Puts groups without members back to the start of everything
    Rewind {
        /// `group=topic,topic`
        #[arg(long)]
        group: Vec<String>,
    },
    /// Says that what was handled shall be handled again
    Allow {
        /// The store's URL
        #[arg(long)]
        store: String,
        #[arg(long)]
        endpoint: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    program::log();
    let args = Args::parse();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.servers).set("enable.auto.commit", "false");
    config.set("reconnect.backoff.max.ms", "500").set("allow.auto.create.topics", "false");
    match args.what {
        What::Watch { group } => watch(&config, &groups(&config, &group)?),
        What::Grow { topic, to } => grow(&config, &topic, to).await,
        What::Allow { store, endpoint } => allow(&store, &endpoint).await,
        What::Rewind { group } => groups(&config, &group)?.iter().try_for_each(Group::rewind),
    }
}

/// A group, seen through a client that has its name and is no member of it.
struct Group {
    name: String,
    topics: Vec<String>,
    consumer: BaseConsumer,
}

fn groups(config: &ClientConfig, words: &[String]) -> Result<Vec<Group>> {
    let one = |word: &String| {
        let (name, topics) = word.split_once('=').context("a group is written group=topic,topic")?;
        let consumer = config.clone().set("group.id", name).create()?;
        Ok(Group { name: name.into(), topics: topics.split(',').map(Into::into).collect(), consumer })
    };
    words.iter().map(one).collect()
}

impl Group {
    fn partitions(&self) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for topic in &self.topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata.topics().first().context("an answer about a topic")?;
            for partition in found.partitions() {
                list.add_partition(topic, partition.id());
            }
        }
        Ok(list)
    }

    /// (topic, partition, committed offset or -1, end).
    fn offsets(&self) -> Result<Vec<(String, i32, i64, i64)>> {
        let list = self.consumer.committed_offsets(self.partitions()?, PATIENCE)?;
        let mut offsets = Vec::new();
        for entry in list.elements() {
            entry.error()?;
            let end = self.consumer.fetch_watermarks(entry.topic(), entry.partition(), PATIENCE)?.1;
            let committed = entry.offset().to_raw().unwrap_or(-1).max(-1);
            offsets.push((entry.topic().to_owned(), entry.partition(), committed, end));
        }
        Ok(offsets)
    }

    fn rewind(&self) -> Result<()> {
        let mut list = self.partitions()?;
        list.set_all_offsets(Offset::Offset(0))?;
        self.consumer.commit(&list, CommitMode::Sync).with_context(|| format!("rewind {}", self.name))
    }
}

fn watch(config: &ClientConfig, groups: &[Group]) -> Result<()> {
    let mut tail = Tail { consumer: config.clone().set("group.id", "onlooker").create()?, next: BTreeMap::new() };
    loop {
        let since = Instant::now();
        // while the cluster is away there is nothing to be said
        match look(groups, &mut tail) {
            Ok(sample) => program::say(&sample),
            Err(error) => eprintln!("{error:#}"),
        }
        std::thread::sleep(PERIOD.saturating_sub(since.elapsed()));
    }
}

fn look(groups: &[Group], tail: &mut Tail) -> Result<Value> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let mut seen = serde_json::Map::new();
    for group in groups {
        let offsets = group.offsets()?;
        let list = group.consumer.fetch_group_list(Some(&group.name), PATIENCE)?;
        let members = list.groups().first().map_or(0, |group| group.members().len());
        let state = list.groups().first().map_or("", |group| group.state());
        tail.catch_up(&offsets)?;
        seen.insert(group.name.clone(), json!({ "members": members, "state": state, "offsets": offsets }));
    }
    Ok(json!({ "began": began, "groups": seen }))
}

/// Reads all there is.
struct Tail {
    consumer: BaseConsumer,
    next: BTreeMap<(String, i32), i64>,
}

impl Tail {
    /// Says every record below a committed offset that was not said yet.
    fn catch_up(&mut self, offsets: &[(String, i32, i64, i64)]) -> Result<()> {
        let known = self.next.len();
        for (topic, partition, ..) in offsets {
            self.next.entry((topic.clone(), *partition)).or_insert(0);
        }
        if self.next.len() > known {
            let mut list = TopicPartitionList::new();
            for ((topic, partition), next) in &self.next {
                list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
            }
            self.consumer.assign(&list)?;
        }
        let since = Instant::now();
        let behind = |next: &BTreeMap<(String, i32), i64>| {
            offsets.iter().any(|(topic, partition, committed, _)| next[&(topic.clone(), *partition)] < *committed)
        };
        while behind(&self.next) {
            anyhow::ensure!(since.elapsed() < PATIENCE, "the records below the offsets do not come");
            let Some(record) = self.consumer.poll(Duration::from_millis(50)) else { continue };
            let record = record?;
            let place = (record.topic().to_owned(), record.partition());
            let header = |name: &str| {
                let headers = record.headers()?;
                let found = headers.iter().find(|header| header.key == name)?;
                Some(String::from_utf8_lossy(found.value?).into_owned())
            };
            let body: Value = serde_json::from_slice(record.payload().unwrap_or_default()).unwrap_or_default();
            let key = record.key().map(|key| String::from_utf8_lossy(key).into_owned());
            program::say(&json!({
                "topic": place.0, "partition": place.1, "offset": record.offset(), "key": key,
                "id": header("sagabus-id"), "type": header("sagabus-type"), "n": body["n"],
            }));
            self.next.insert(place, record.offset() + 1);
        }
        Ok(())
    }
}

async fn allow(store: &str, endpoints: &[String]) -> Result<()> {
    for name in endpoints {
        let endpoint = Endpoint::builder(name.as_str()).store(store).build().await?;
        let admin = endpoint.admin().context("a store")?;
        let logs: BTreeSet<String> =
            admin.positions().await?.iter().map(|position| position.partition.log.to_string()).collect();
        anyhow::ensure!(!logs.is_empty(), "nothing is known of where {name} is");
        for log in logs {
            let (by, why) = ("the nemesis".to_owned(), "a replay".to_owned());
            admin.reset_positions(&PositionReset { log, partition: None, to: 0, by, why }).await?;
        }
    }
    Ok(())
}

async fn grow(config: &ClientConfig, topics: &[String], to: usize) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let wanted: Vec<NewPartitions<'_>> = topics.iter().map(|topic| NewPartitions::new(topic, to)).collect();
    for grown in admin.create_partitions(&wanted, &AdminOptions::new().request_timeout(Some(PATIENCE))).await? {
        grown.map_err(|(topic, code)| anyhow::anyhow!("more partitions for {topic}: {code}"))?;
    }
    Ok(())
}
