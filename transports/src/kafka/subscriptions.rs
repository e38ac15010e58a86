//! Which events an endpoint gets: those that were published while it was subscribed.
//!
//! Kafka keeps no subscriptions. A group's position would almost do: but it cannot be written while other processes of
//! the group are running, and two that write it at once overwrite each other. So each endpoint has a topic of one
//! partition, to which changes are appended: from which offsets on a type is subscribed, and up to which. Of two changes
//! that say the same the first one counts, and everybody who reads the log sees the same order.

use super::{
    cluster::{Cluster, QUERY_TIMEOUT},
    error::{failed, unusable},
    metadata_context::log as client_log,
    oauth::{self, Tokens},
    topic_partition::TopicPartition,
    topics::{TopicKind, Topics},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::KafkaError,
    message::Message,
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use sagabus_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// One change: from these offsets on, by partition, events of the type are wanted, or not any more.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    event: String,
    wanted: bool,
    offsets: BTreeMap<i32, i64>,
}

/// All subscriptions of an endpoint, former ones included.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<String, Vec<Period>>);

/// While it was subscribed.
#[derive(Debug)]
struct Period {
    from: BTreeMap<i32, i64>,
    until: Option<BTreeMap<i32, i64>>,
}

impl Period {
    /// A partition that did not exist when it began is wanted from its start; one that did not exist when it ended is not.
    fn of(&self, partition: i32) -> (i64, i64) {
        let from = self.from.get(&partition).copied().unwrap_or(0);
        let until = self.until.as_ref().map_or(i64::MAX, |until| until.get(&partition).copied().unwrap_or(0));
        (from, until)
    }
}

impl Subscriptions {
    fn add(&mut self, change: Change) {
        let periods = self.0.entry(change.event).or_default();
        let open = periods.last_mut().filter(|period| period.until.is_none());
        match (open, change.wanted) {
            (None, true) => periods.push(Period { from: change.offsets, until: None }),
            (Some(period), false) => period.until = Some(change.offsets),
            _ => {}
        }
    }

    fn current(&self) -> BTreeSet<&str> {
        let open = |periods: &Vec<Period>| periods.last().is_some_and(|period| period.until.is_none());
        self.0.iter().filter(|(_, periods)| open(periods)).map(|(event, _)| event.as_str()).collect()
    }

    /// Types that are or were subscribed.
    pub(super) fn events(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The ranges of a partition that are wanted.
    pub(super) fn ranges(&self, event: &str, partition: i32) -> Vec<(i64, i64)> {
        let periods = self.0.get(event).map(Vec::as_slice).unwrap_or_default();
        periods.iter().map(|period| period.of(partition)).filter(|(from, until)| from < until).collect()
    }
}

/// Reads the log of an endpoint; an endpoint without one has no subscriptions.
pub(super) fn read(cluster: &Cluster, queue: &str) -> Result<Subscriptions> {
    let topic = cluster.names.subscriptions(queue)?;
    let mut subscriptions = Subscriptions::default();
    if cluster.find(&topic)?.is_none() {
        return Ok(subscriptions);
    }
    let (low, high) = cluster.ends(&TopicPartition::new(topic.as_str(), 0))?;
    if low >= high {
        return Ok(subscriptions);
    }
    let doing = || format!("read the subscriptions of {queue}");
    let consumer = cluster.group_reader(&format!("{topic}.reader"))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(low)).map_err(|e| failed(doing(), e))?;
    consumer.assign(&list).map_err(|e| failed(doing(), e))?;
    let start = cluster.options.runtime.elapsed();
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                // what is no change was not written by us
                if let Some(change) = record.payload().and_then(|body| serde_json::from_slice(body).ok()) {
                    subscriptions.add(change);
                }
                if record.offset() + 1 >= high {
                    return Ok(subscriptions);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(subscriptions),
            Some(Err(error)) => return Err(failed(doing(), error)),
            None => {}
        }
        if cluster.options.runtime.elapsed() - start > QUERY_TIMEOUT {
            return Err(Error::new(ErrorKind::Transient, format!("{}: no answer in time", doing())));
        }
    }
}

/// Makes the subscriptions of an endpoint these.
pub(super) async fn apply(cluster: &Arc<Cluster>, topics: &Topics, queue: &str, wanted: &[String]) -> Result<()> {
    for event in wanted {
        topics.ensure(&cluster.names.event(event)?, TopicKind::Work).await?;
    }
    let log = cluster.names.subscriptions(queue)?;
    let (name, log_topic) = (queue.to_string(), log.clone());
    let has_log = cluster.blocking(move |cluster| cluster.find(&log_topic)).await?.is_some();
    if !has_log && wanted.is_empty() {
        return Ok(());
    }
    if !has_log {
        topics.ensure(&log, TopicKind::Log).await?;
    }
    let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
    cluster
        .blocking(move |cluster| {
            let known = read(cluster, &name)?;
            let current = known.current();
            let begun =
                wanted.iter().filter(|event| !current.contains(event.as_str())).map(|event| (event.as_str(), true));
            let ended = current.iter().filter(|event| !wanted.contains(**event)).map(|event| (*event, false));
            let changes = begun.chain(ended).map(|(event, wanted)| change(cluster, event, wanted));
            append(cluster, &log, &changes.collect::<Result<Vec<Change>>>()?)
        })
        .await
}

/// From the ends of the partitions as they are now.
fn change(cluster: &Cluster, event: &str, wanted: bool) -> Result<Change> {
    let topic = cluster.names.event(event)?;
    let partitions = cluster.find(&topic)?.map_or(0, |known| known.partitions);
    let topic: Arc<str> = topic.into();
    let end = |n| Ok((n, cluster.ends(&TopicPartition::new(Arc::clone(&topic), n))?.1));
    let offsets = (0..partitions).map(end).collect::<Result<BTreeMap<i32, i64>>>()?;
    if !wanted {
        tracing::info!(event, "the subscription has ended: what is published from now on is not received");
    }
    Ok(Change { event: event.to_string(), wanted, offsets })
}

fn append(cluster: &Cluster, log: &str, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let doing = || format!("write down subscriptions in topic {log}");
    let mut config = cluster.settings.config();
    config.set("enable.idempotence", "true").set("message.timeout.ms", "10000").set("linger.ms", "0");
    let context = AppendContext { failure: Arc::default(), tokens: cluster.options.tokens.clone() };
    let failure = Arc::clone(&context.failure);
    let producer: ThreadedProducer<AppendContext> = config.create_with_context(context).map_err(unusable)?;
    for change in changes {
        let body = serde_json::to_vec(change)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "encode a subscription", e))?;
        producer.send(BaseRecord::<[u8], [u8]>::to(log).payload(&body)).map_err(|(e, _)| failed(doing(), e))?;
    }
    producer.flush(QUERY_TIMEOUT).map_err(|e| failed(doing(), e))?;
    match crate::lock(&failure).take() {
        Some(error) => Err(failed(doing(), error)),
        None => Ok(()),
    }
}

/// Keeps the last failure of a delivery.
struct AppendContext {
    failure: Arc<std::sync::Mutex<Option<KafkaError>>>,
    tokens: Option<Tokens>,
}

impl rdkafka::ClientContext for AppendContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<rdkafka::client::OAuthToken, Box<dyn std::error::Error>> {
        oauth::generate(self.tokens.as_ref())
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, text: &str) {
        client_log(level, facility, text);
    }
}

impl rdkafka::producer::ProducerContext for AppendContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *crate::lock(&self.failure) = Some(error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_changes_counts() {
        let mut subscriptions = Subscriptions::default();
        let change = |wanted, offset| Change { event: "a".into(), wanted, offsets: BTreeMap::from([(0, offset)]) };
        subscriptions.add(change(false, 1));
        for (wanted, offset) in [(true, 5), (true, 9), (false, 20), (false, 25), (true, 30)] {
            subscriptions.add(change(wanted, offset));
        }
        assert_eq!(subscriptions.ranges("a", 0), [(5, 20), (30, i64::MAX)]);
        assert_eq!(subscriptions.current(), BTreeSet::from(["a"]));
        // a partition that came later
        assert_eq!(subscriptions.ranges("a", 1), [(0, i64::MAX)]);
        assert_eq!(subscriptions.ranges("b", 0), []);
        subscriptions.add(change(false, 30));
        assert_eq!(subscriptions.ranges("a", 0), [(5, 20)]);
        assert!(subscriptions.current().is_empty());
    }
}
