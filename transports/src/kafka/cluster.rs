//! The cluster: answers which topics there are, where they end, and what a group has committed.

use super::{
    error::{failed, failed_with, kind_of},
    metadata_context::{ConnectProblem, MetadataContext},
    names::Names,
    oauth::Tokens,
    offset_tracker::OffsetNote,
    options::KafkaOptions,
    query_client::{lasting, short_lived},
    topic_partition::{TopicPartition, list_of},
    url::ClientSettings,
};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    types::RDKafkaErrorCode as Code,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{sync::Arc, time::Duration};

/// How long one question may take.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt to reach the cluster waits, before the problem is looked at.
const CONNECT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The cluster, as all parts of the transport share it.
pub(super) struct Cluster {
    pub(super) settings: ClientSettings,
    pub(super) names: Names,
    pub(super) options: KafkaOptions,
    client: Arc<BaseConsumer<MetadataContext>>,
}

/// What the cluster knows of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    pub(super) partitions: i32,
    /// Whether each of them has a leader.
    pub(super) led: bool,
}

impl Cluster {
    pub(super) fn new(settings: ClientSettings, options: KafkaOptions) -> Result<Self> {
        let mut config = settings.config();
        // a question about a topic must not create it
        config.set("allow.auto.create.topics", "false");
        let client = lasting(&config, &options)?;
        Ok(Self { names: Names { prefix: options.prefix.clone() }, settings, options, client })
    }

    /// Runs what blocks, on a thread for that.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&cluster)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::with_source(ErrorKind::Transient, "a task that asks kafka ended early", error)),
        }
    }

    /// Whether the cluster answers. What stands in the way, such as a password or a certificate, is told only on the side:
    /// the question itself is not answered in time.
    pub(super) fn reach(&self, limit: Duration) -> Result<()> {
        let start = self.options.runtime.elapsed();
        let context = self.client.context();
        context.clear_problem();
        loop {
            let left = limit.saturating_sub(self.options.runtime.elapsed() - start);
            let timeout = left.min(CONNECT_ATTEMPT_TIMEOUT).max(Duration::from_millis(1));
            let Err(error) = self.client.fetch_metadata(Some(""), timeout) else { return Ok(()) };
            // why is told by events that are taken here only; those about the log end a poll that has no time
            while self.client.poll(Duration::from_millis(20)).is_some() {}
            // without a token nothing was tried at all
            if let Some(why) = self.options.tokens.as_ref().and_then(Tokens::failure) {
                return Err(Error::with_source(why.kind(), format!("reach kafka: {why}"), error));
            }
            let late = self.options.runtime.elapsed() - start >= limit;
            match context.problem() {
                Some((problem, reason)) if late || problem == ConnectProblem::Password => {
                    let kind =
                        if problem == ConnectProblem::Network { ErrorKind::Transient } else { ErrorKind::Backend };
                    return Err(Error::with_source(kind, format!("reach kafka: {reason}"), error));
                }
                None if late => return Err(failed("reach kafka", error)),
                // it may be starting; and what was said first is often not the reason
                _ => {}
            }
        }
    }

    /// A topic, if it exists.
    pub(super) fn find(&self, topic: &str) -> Result<Option<TopicMetadata>> {
        let doing = || format!("look for topic {topic}");
        let metadata = self.client.fetch_metadata(Some(topic), QUERY_TIMEOUT).map_err(|e| failed(doing(), e))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(TopicMetadata {
                partitions: i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
                led: found.partitions().iter().all(|partition| partition.leader() >= 0),
            })),
            Some(code) => match kind_of(code) {
                ErrorKind::NotFound => Ok(None),
                // while a topic is being made its leader is missing
                _ => Err(failed_with(doing(), code)),
            },
        }
    }

    /// The first offset that is there, and the one that comes next. While a partition has no leader, for a moment after
    /// its creation or the death of a broker, this waits.
    pub(super) fn ends(&self, TopicPartition { topic, partition }: &TopicPartition) -> Result<(i64, i64)> {
        let start = self.options.runtime.elapsed();
        loop {
            match self.client.fetch_watermarks(topic, *partition, QUERY_TIMEOUT) {
                Ok(ends) => return Ok(ends),
                Err(error) => {
                    let error = failed(format!("ask where partition {partition} of topic {topic} ends"), error);
                    if !error.is_transient() || self.options.runtime.elapsed() - start > QUERY_TIMEOUT {
                        return Err(error);
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            }
        }
    }

    /// A client that belongs to a group by name only: it reads what the group has committed, and partitions that it is told.
    pub(super) fn group_reader(&self, group: &str) -> Result<BaseConsumer<MetadataContext>> {
        let mut config = self.settings.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
        config.set("fetch.wait.max.ms", "50").set("enable.partition.eof", "true");
        short_lived(&config, &self.options)
    }

    /// The same for reading a few records here and there.
    pub(super) fn record_sampler(&self, group: &str) -> Result<BaseConsumer<MetadataContext>> {
        let mut config = self.settings.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
        config.set("fetch.wait.max.ms", "50").set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        // its default is a second without fetching any partition once there is a message of one of them
        config.set("fetch.queue.backoff.ms", "1");
        short_lived(&config, &self.options)
    }
}

/// The notes that a group has committed for these partitions, `None` where there is none. Needs any client of the group.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<OffsetNote>>> {
    let list = consumer
        .committed_offsets(list_of(partitions), QUERY_TIMEOUT)
        .map_err(|e| failed("ask for committed offsets", e))?;
    let mut found = Vec::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        let Some(entry) = list.find_partition(topic, *partition) else {
            found.push(None);
            continue;
        };
        entry.error().map_err(|e| failed(format!("ask for the committed offset of topic {topic}"), e))?;
        found.push(match entry.offset() {
            // rdkafka panics where the text is not UTF-8; ours is, and a group belongs to one endpoint
            Offset::Offset(offset) => Some(OffsetNote::read(offset, entry.metadata())),
            _ => None,
        });
    }
    Ok(found)
}
