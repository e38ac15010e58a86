//! Clients of the cluster for questions: which topics there are, where they end, what a group has committed.

use super::{error::failed, names::Names, options::KafkaOptions, progress::Note, url::Cluster};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{sync::Arc, time::Duration};

/// How long one question may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Sends librdkafka's log to `tracing`. It holds no passwords.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka: {text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "kafka: {text}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka: {text}"),
    }
}

/// The context of clients that nobody listens to: what they ask has an answer or an error.
#[derive(Clone, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
    }
}

impl ConsumerContext for Quiet {
    // without this the default would assign what nobody reads
    fn rebalance(&self, _: &BaseConsumer<Self>, _: RDKafkaRespErr, _: &mut TopicPartitionList) {}
}

/// What all parts of the transport share.
pub(super) struct Home {
    pub(super) cluster: Cluster,
    pub(super) names: Names,
    pub(super) options: KafkaOptions,
    questions: BaseConsumer<Quiet>,
}

/// What the cluster knows of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) partitions: i32,
    /// Whether each of them has a leader.
    pub(super) led: bool,
}

impl Home {
    pub(super) fn new(cluster: Cluster, options: KafkaOptions) -> Result<Self> {
        let mut config = cluster.config();
        // a question about a topic must not create it
        config.set("allow.auto.create.topics", "false");
        let questions = create(&config)?;
        Ok(Self { names: Names { prefix: options.prefix.clone() }, cluster, options, questions })
    }

    /// Runs what blocks, on a thread for that.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let home = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&home)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::with_source(ErrorKind::Transient, "a task that asks kafka ended early", error)),
        }
    }

    /// Whether the cluster answers.
    pub(super) fn reach(&self, limit: Duration) -> Result<()> {
        let answer = self.questions.fetch_metadata(Some(""), limit);
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(failed("reach kafka", error)),
        }
    }

    /// A topic, if it exists.
    pub(super) fn find(&self, topic: &str) -> Result<Option<Known>> {
        let doing = || format!("look for topic {topic}");
        let metadata = self.questions.fetch_metadata(Some(topic), PATIENCE).map_err(|e| failed(doing(), e))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(rdkafka::types::RDKafkaErrorCode::from) {
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(Known {
                partitions: i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
                led: found.partitions().iter().all(|partition| partition.leader() >= 0),
            })),
            Some(code) => match super::error::kind_of(code) {
                ErrorKind::NotFound => Ok(None),
                // while a topic is being made its leader is missing
                _ => Err(super::error::failed_with(doing(), code)),
            },
        }
    }

    /// The first offset that is there, and the one that comes next. While a partition has no leader, for a moment after
    /// its creation or the death of a broker, this waits.
    pub(super) fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let start = self.options.runtime.elapsed();
        loop {
            match self.questions.fetch_watermarks(topic, partition, PATIENCE) {
                Ok(ends) => return Ok(ends),
                Err(error) => {
                    let error = failed(format!("ask where partition {partition} of topic {topic} ends"), error);
                    if !error.is_transient() || self.options.runtime.elapsed() - start > PATIENCE {
                        return Err(error);
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            }
        }
    }

    /// A client that belongs to a group by name only: it reads what the group has committed, and partitions that it is told.
    pub(super) fn onlooker(&self, group: &str) -> Result<BaseConsumer<Quiet>> {
        let mut config = self.cluster.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
        config.set("fetch.wait.max.ms", "50").set("enable.partition.eof", "true");
        create(&config)
    }
}

fn create(config: &ClientConfig) -> Result<BaseConsumer<Quiet>> {
    config.create_with_context(Quiet).map_err(unusable)
}

/// The settings were refused before anything was sent.
pub(super) fn unusable(error: KafkaError) -> Error {
    // its text names a setting and, for some, the value: never shown
    let text = match &error {
        KafkaError::ClientConfig(_, why, setting, _) => format!("make a kafka client: {setting}: {why}"),
        _ => "make a kafka client: the settings do not work together".to_string(),
    };
    Error::invalid(text)
}

/// What a group has written down for these partitions, `None` where nothing is. Needs any client of the group.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(Arc<str>, i32)],
) -> Result<Vec<Option<Note>>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let list = consumer.committed_offsets(list, PATIENCE).map_err(|e| failed("ask for committed offsets", e))?;
    let mut notes = Vec::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        let Some(entry) = list.find_partition(topic, *partition) else {
            notes.push(None);
            continue;
        };
        entry.error().map_err(|e| failed(format!("ask for the committed offset of topic {topic}"), e))?;
        notes.push(match entry.offset() {
            // rdkafka panics where the text is not UTF-8; ours is, and a group is nobody else's
            Offset::Offset(base) => Some(Note::read(base, entry.metadata())),
            _ => None,
        });
    }
    Ok(notes)
}
