//! Topics: made where they are missing, checked where they are there.

use super::{
    cluster::{Cluster, QUERY_TIMEOUT, TopicMetadata},
    error::{failed, failed_with, kind_of, unusable},
    metadata_context::MetadataContext,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    types::RDKafkaErrorCode,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// The purpose of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicKind {
    /// Commands of an endpoint, or events of a type.
    Work,
    /// Replies to one process.
    Replies,
    /// The log of an endpoint's subscriptions.
    Log,
}

/// Partitions of a topic that is created, unless another number is asked for.
const DEFAULT_PARTITIONS: u16 = 12;

/// Bytes that the records of a batch take besides our bytes.
const BATCH_OVERHEAD_BYTES: usize = 4096;

/// How long a new topic may take to be seen.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Topics {
    cluster: Arc<Cluster>,
    /// With OAUTHBEARER there is none: rdkafka never polls it for what a token is asked for by.
    admin: Option<AdminClient<MetadataContext>>,
}

impl Topics {
    pub(super) fn new(cluster: Arc<Cluster>) -> Result<Self> {
        let admin = match cluster.options.tokens {
            Some(_) => None,
            None => Some(cluster.settings.config().create_with_context(MetadataContext::new(None)).map_err(unusable)?),
        };
        Ok(Self { cluster, admin })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT)).operation_timeout(Some(QUERY_TIMEOUT))
    }

    /// Makes a topic where it is missing, and checks that it fits.
    pub(super) async fn ensure(&self, topic: &str, kind: TopicKind) -> Result<()> {
        let name = topic.to_string();
        let found = self.cluster.blocking(move |cluster| cluster.find(&name)).await?;
        if let Some(known) = found {
            self.check(topic, kind).await?;
            let (has, asked) = (known.partitions, self.cluster.options.partitions.filter(|_| kind == TopicKind::Work));
            return match asked.filter(|asked| has < i32::from(*asked)) {
                None => Ok(()),
                Some(asked) => Err(Error::invalid(format!(
                    "topic {topic} has {has} partitions, and the kafka URL asks for {asked}: add some with kafka's own tool \
                     (their keys move, and their order across that moment is lost), or say partitions={has}"
                ))),
            };
        }
        if !self.cluster.options.create {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("topic {topic} does not exist, and the kafka URL says create=no"),
            ));
        }
        self.create(topic, kind).await?;
        self.visible(topic).await
    }

    fn partitions(&self, kind: TopicKind) -> u16 {
        if kind == TopicKind::Work { self.cluster.options.partitions.unwrap_or(DEFAULT_PARTITIONS) } else { 1 }
    }

    async fn create(&self, topic: &str, kind: TopicKind) -> Result<()> {
        let options = &self.cluster.options;
        let Some(admin) = &self.admin else { return Err(self.cannot_create(topic, kind)) };
        let replication = TopicReplication::Fixed(options.replication.map_or(-1, i32::from));
        let size = (options.max_message + BATCH_OVERHEAD_BYTES).to_string();
        let mut new = NewTopic::new(topic, self.partitions(kind).into(), replication)
            .set("cleanup.policy", "delete")
            .set("max.message.bytes", &size);
        match kind {
            TopicKind::Work => {}
            TopicKind::Replies => new = new.set("retention.ms", "3600000"),
            TopicKind::Log => new = new.set("retention.ms", "-1").set("retention.bytes", "-1"),
        }
        let doing = || format!("create topic {topic}");
        let results = admin.create_topics([&new], &self.options()).await.map_err(|e| failed(doing(), e))?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(failed_with(doing(), code)),
            // another process was faster, with the same settings or with ones that the check below finds
            _ => Ok(()),
        }
    }

    /// The error for a topic that is missing and cannot be made from here.
    fn cannot_create(&self, topic: &str, kind: TopicKind) -> Error {
        let (partitions, bytes) = (self.partitions(kind), self.cluster.options.max_message + BATCH_OVERHEAD_BYTES);
        let retention = if kind == TopicKind::Log { ", retention.ms=-1, retention.bytes=-1" } else { "" };
        Error::new(
            ErrorKind::NotFound,
            format!(
                "topic {topic} does not exist, and with sasl=oauthbearer topics cannot be created from here: make it with \
                 kafka's own tool, with {partitions} partitions, cleanup.policy=delete, max.message.bytes={bytes}{retention}"
            ),
        )
    }

    /// Waits until the brokers that we ask know of it.
    async fn visible(&self, topic: &str) -> Result<()> {
        let runtime = &self.cluster.options.runtime;
        let start = runtime.elapsed();
        loop {
            let name = topic.to_string();
            // right after its creation a topic may have no leader yet, which is an error
            if let Ok(Some(TopicMetadata { led: true, .. })) =
                self.cluster.blocking(move |cluster| cluster.find(&name)).await
            {
                return Ok(());
            }
            if runtime.elapsed() - start > VISIBILITY_TIMEOUT {
                return Err(Error::new(ErrorKind::Transient, format!("topic {topic} was created and is not there")));
            }
            runtime.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Settings that would lose messages are refused.
    async fn check(&self, topic: &str, kind: TopicKind) -> Result<()> {
        let Some(admin) = &self.admin else {
            tracing::debug!(topic, "with OAUTHBEARER a topic's settings cannot be asked for: they are not checked");
            return Ok(());
        };
        let doing = || format!("ask for the settings of topic {topic}");
        let configs = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &self.options()).await;
        let config = match configs.map_err(|e| failed(doing(), e))?.into_iter().next() {
            Some(Ok(config)) => config,
            Some(Err(code)) if kind_of(code) == ErrorKind::Backend => {
                // reading settings is a right of its own, and having it is not worth a refusal
                tracing::warn!(topic, "kafka does not let us see the topic's settings: they are not checked");
                return Ok(());
            }
            Some(Err(code)) => return Err(failed_with(doing(), code)),
            None => return Err(Error::new(ErrorKind::Transient, format!("{}: no answer", doing()))),
        };
        let settings: HashMap<&str, &str> =
            config.entries.iter().filter_map(|e| Some((e.name.as_str(), e.value.as_deref()?))).collect();
        if settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            return Err(Error::invalid(format!(
                "topic {topic} is compacted, which would remove messages: set its cleanup.policy to delete"
            )));
        }
        let takes = settings.get("max.message.bytes").and_then(|bytes| bytes.parse::<usize>().ok());
        let wanted = self.cluster.options.max_message + BATCH_OVERHEAD_BYTES;
        if kind == TopicKind::Work
            && let Some(takes) = takes.filter(|takes| *takes < wanted)
        {
            return Err(Error::invalid(format!(
                "topic {topic} takes messages of {takes} bytes, and {wanted} are asked for: raise its max.message.bytes, \
                 or set max_message in the kafka URL to {} or less",
                takes.saturating_sub(BATCH_OVERHEAD_BYTES)
            )));
        }
        Ok(())
    }

    /// Removes topics of ours. It is no error if they are gone.
    pub(super) async fn remove(&self, topics: &[String]) {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if let Some(admin) = self.admin.as_ref().filter(|_| !names.is_empty())
            && let Err(error) = admin.delete_topics(&names, &self.options()).await
        {
            tracing::warn!(%error, "could not remove the topics of reply queues");
        }
    }
}
