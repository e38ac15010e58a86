//! Clients of the cluster for questions: which topics there are, where they end, what a group has committed.

use super::{
    error::failed,
    names::Names,
    oauth::{self, Tokens},
    options::KafkaOptions,
    progress::Note,
    url::Cluster,
};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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

/// Who wants to reach the cluster looks after so long for what stands in the way.
const GLANCE: Duration = Duration::from_secs(2);

/// The context of clients that nobody listens to: what they ask has an answer or an error. It keeps what librdkafka says
/// about the connection.
pub(super) struct Quiet {
    said: Mutex<Option<(Hurdle, String)>>,
    tokens: Option<Tokens>,
    asked: AtomicBool,
}

impl Quiet {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self { said: Mutex::default(), tokens, asked: AtomicBool::new(false) }
    }

    /// Whether the client has asked for a token, and got an answer.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// What stands between us and the cluster: the later ones tell more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hurdle {
    Network,
    Certificate,
    Password,
}

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        let answer = oauth::generate(self.tokens.as_ref());
        self.asked.store(true, Ordering::Release);
        answer
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
        let hurdle = match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => Hurdle::Password,
            Some(Code::SSL) => Hurdle::Certificate,
            // the brokers that were asked, all together: not the reason
            Some(Code::AllBrokersDown) => return,
            _ => Hurdle::Network,
        };
        let mut worst = crate::lock(&self.said);
        if worst.as_ref().is_none_or(|(known, _)| *known <= hurdle) {
            *worst = Some((hurdle, reason.to_string()));
        }
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
    questions: Arc<BaseConsumer<Quiet>>,
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
        let questions = Arc::new(create(&config, &options)?);
        if options.tokens.is_some() {
            oauth::serve(&questions)?;
        }
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

    /// Whether the cluster answers. What stands in the way, such as a password or a certificate, is told only on the side:
    /// the question itself is not answered in time.
    pub(super) fn reach(&self, limit: Duration) -> Result<()> {
        let start = self.options.runtime.elapsed();
        let said = &self.questions.context().said;
        crate::lock(said).take();
        loop {
            let left = limit.saturating_sub(self.options.runtime.elapsed() - start);
            let Err(error) = self.questions.fetch_metadata(Some(""), left.min(GLANCE).max(Duration::from_millis(1)))
            else {
                return Ok(());
            };
            // why is told by events that nobody else takes; those about the log end a poll that has no time
            while self.questions.poll(Duration::from_millis(20)).is_some() {}
            // without a token nothing was tried at all
            if let Some(why) = self.options.tokens.as_ref().and_then(Tokens::failure) {
                return Err(Error::with_source(why.kind(), format!("reach kafka: {why}"), error));
            }
            let late = self.options.runtime.elapsed() - start >= limit;
            match &*crate::lock(said) {
                Some((hurdle, reason)) if late || *hurdle == Hurdle::Password => {
                    let kind = if *hurdle == Hurdle::Network { ErrorKind::Transient } else { ErrorKind::Backend };
                    return Err(Error::with_source(kind, format!("reach kafka: {reason}"), error));
                }
                None if late => return Err(failed("reach kafka", error)),
                // it may be starting; and what was said first is often not the reason
                _ => {}
            }
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
        self.passing(&config)
    }

    /// The same for reading a few records here and there.
    pub(super) fn glance(&self, group: &str) -> Result<BaseConsumer<Quiet>> {
        let mut config = self.cluster.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("allow.auto.create.topics", "false");
        config.set("fetch.wait.max.ms", "50").set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        // its default is a second without fetching any partition once there is a message of one of them
        config.set("fetch.queue.backoff.ms", "1");
        self.passing(&config)
    }

    /// A client that is soon gone again.
    fn passing(&self, config: &ClientConfig) -> Result<BaseConsumer<Quiet>> {
        let client = create(config, &self.options)?;
        oauth::prime(&client, &self.options)?;
        Ok(client)
    }
}

fn create(config: &ClientConfig, options: &KafkaOptions) -> Result<BaseConsumer<Quiet>> {
    config.create_with_context(Quiet::new(options.tokens.clone())).map_err(unusable)
}

/// The settings were refused before anything was sent.
pub(super) fn unusable(error: KafkaError) -> Error {
    // its text names a setting and, for some, the value: never shown
    let text = match &error {
        KafkaError::ClientConfig(_, why, setting, _) => format!("make a kafka client: {setting}: {why}"),
        // about files with certificates: it names the setting, and what is wrong with what is in it
        KafkaError::ClientCreation(why) if why.starts_with("ssl.") => format!("make a kafka client: {why}"),
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
