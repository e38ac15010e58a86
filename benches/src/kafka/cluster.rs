//! Where the cluster is, and the clients of a program that cares for its speed.

use anyhow::{Context as _, Result, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use std::time::Duration;

/// How long one question may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A topic has as many partitions as the endpoint's, unless the URL says otherwise.
const PARTITIONS: i32 = 12;

#[derive(Clone)]
pub(super) struct Cluster {
    servers: String,
    prefix: String,
    partitions: i32,
}

impl Cluster {
    /// Of a run's URL: `kafka://host:port?prefix=…&partitions=…`.
    pub(super) fn of(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let servers = base.strip_prefix("kafka://").context("a kafka URL begins with kafka://")?;
        ensure!(!servers.contains('@'), "the bench talks to clusters without passwords only");
        let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let partitions = of("partitions").map_or(Ok(PARTITIONS), str::parse).context("the number of partitions")?;
        let prefix = of("prefix").context("the prefix of this run's topics")?.to_owned();
        Ok(Self { servers: servers.trim_end_matches('/').to_owned(), prefix, partitions })
    }

    /// As the endpoint names it, so that both sides' sinks are found.
    pub(super) fn topic(&self, queue: &str) -> String {
        format!("{}cmd.{queue}", self.prefix)
    }

    pub(super) fn group(&self, queue: &str) -> String {
        format!("{}{queue}", self.prefix)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("allow.auto.create.topics", "false");
        config
    }

    /// Offsets are committed when they were stored, and those of `group` only.
    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.config();
        config.set("group.id", group).set("auto.offset.reset", "earliest");
        config.set("enable.auto.offset.store", "false").set("auto.commit.interval.ms", "100");
        // its default, a second without fetching after a full queue, would be most of the time
        config.set("fetch.queue.backoff.ms", "1").set("queued.min.messages", "20000");
        config.create().context("make a consumer")
    }

    pub(super) fn producing(&self, linger: Duration) -> ClientConfig {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
        config.set("linger.ms", linger.as_millis().to_string()).set("batch.size", "1000000");
        config.set("compression.type", "lz4").set("queue.buffering.max.messages", "100000");
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().context("make an admin client")
    }

    pub(super) async fn create(&self, queues: &[&str]) -> Result<()> {
        let admin = self.admin()?;
        for queue in queues {
            let topic = self.topic(queue);
            let new = NewTopic::new(&topic, self.partitions, TopicReplication::Fixed(-1));
            let made = admin.create_topics([&new], &options()).await?;
            ensure!(made.iter().all(|one| one.is_ok()), "create topic {topic}: {made:?}");
            // for a moment it has no leader
            while self.ends(&topic).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Where each partition ends.
    pub(super) async fn ends(&self, topic: &str) -> Result<Vec<i64>> {
        let (config, topic) = (self.config(), topic.to_owned());
        let ask = move || {
            let client: BaseConsumer = config.create()?;
            let found = client.fetch_metadata(Some(&topic), PATIENCE)?;
            let partitions = found.topics().first().map_or(0, |topic| topic.partitions().len());
            ensure!(partitions > 0, "topic {topic} is not there");
            let end = |partition| Ok(client.fetch_watermarks(&topic, partition, PATIENCE)?.1);
            (0..i32::try_from(partitions)?).map(end).collect()
        };
        tokio::task::spawn_blocking(ask).await?
    }

    /// Topics and groups with the prefix.
    pub(super) fn remove_all(&self) -> Result<()> {
        let client: BaseConsumer = self.config().create()?;
        let found = client.fetch_metadata(None, PATIENCE)?;
        let names = found.topics().iter().map(|topic| topic.name());
        let topics: Vec<&str> = names.filter(|name| name.starts_with(&self.prefix)).collect();
        let groups = client.fetch_group_list(None, PATIENCE)?;
        let names = groups.groups().iter().map(|group| group.name());
        let groups: Vec<&str> = names.filter(|name| name.starts_with(&self.prefix)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let admin = self.admin()?;
            if !topics.is_empty() {
                admin.delete_topics(&topics, &options()).await?;
            }
            if !groups.is_empty() {
                admin.delete_groups(&groups, &options()).await?;
            }
            Ok(())
        })
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}
