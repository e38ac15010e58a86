use super::{
    cluster::{Cluster, committed},
    encode::{Wire, wire},
    offset_tracker::OffsetNote,
    options::KafkaOptions,
    publisher::{PublishOutcome, Publisher},
    receiver::KafkaReceiver,
    shared::ReceiverState,
    subscriptions,
    topic_partition::TopicPartition,
    topics::{TopicKind, Topics},
    url,
};
use crate::lock;
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Destination, Error, ErrorKind, Outgoing, ReceiveOptions, Receiver, Result, SendOutcome,
    Topology, Transport, check_name,
};
use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::OnceCell;

/// How often a topic that is missing is looked for: another broker may know it a moment later.
const TOPIC_LOOKUPS: u32 = 3;

/// How long after a topic was not found it is looked for again.
const TOPIC_LOOKUP_PAUSE: Duration = Duration::from_millis(60);

/// A Kafka cluster as a transport: see the [module](super) for what it makes of it.
///
/// Dropping it without [`close`](Transport::close) is a crash: sends on their way are unknown, and what was in flight comes
/// again.
pub struct KafkaTransport {
    cluster: Arc<Cluster>,
    topics: Topics,
    publisher: Publisher,
    /// For messages that are too large for their topic only together with others.
    single_publisher: OnceCell<Publisher>,
    /// Topics that were found.
    known_topics: Mutex<HashSet<String>>,
    /// Reply queues of this process.
    temporary: Mutex<BTreeSet<String>>,
    receivers: Mutex<Vec<Weak<ReceiverState>>>,
    closed: AtomicBool,
}

impl KafkaTransport {
    /// Connects to `kafka://user:password@host:port,host2:port2` or `kafka+ssl://…`; parameters follow after a question
    /// mark (see [`KafkaOptions`]).
    ///
    /// # Errors
    /// [Invalid](Error::is_invalid) for a URL that cannot be read, [unsupported](Error::is_unsupported) for what this
    /// build lacks, [transient](Error::is_transient) when no broker answers. None of them shows the URL.
    pub async fn connect(url: &str, options: KafkaOptions) -> Result<Self> {
        let (cluster, options) = url::parse(url, options)?;
        let cluster = Arc::new(Cluster::new(cluster, options)?);
        let limit = cluster.options.connect_timeout;
        cluster.blocking(move |cluster| cluster.reach(limit)).await?;
        Ok(Self {
            topics: Topics::new(Arc::clone(&cluster))?,
            publisher: Publisher::new(Arc::clone(&cluster))?,
            single_publisher: OnceCell::new(),
            known_topics: Mutex::default(),
            temporary: Mutex::default(),
            receivers: Mutex::default(),
            closed: AtomicBool::new(false),
            cluster,
        })
    }

    /// How many messages wait for a queue, those that are being handled included, as far as it is written down: what is
    /// known as the group's lag, without what was finished out of order.
    pub async fn backlog(&self, queue: &str) -> Result<u64> {
        self.open()?;
        check_name("queue", queue)?;
        let queue = queue.to_string();
        self.cluster.blocking(move |cluster| backlog(cluster, &queue)).await
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        Ok(())
    }

    /// Looks for the topics of a batch that were not seen yet. Answers those that are missing.
    async fn missing(&self, wires: &[Wire]) -> Result<HashSet<String>> {
        let unseen: BTreeSet<(String, bool)> = {
            let known = lock(&self.known_topics);
            let unseen = wires.iter().filter(|wire| !known.contains(&wire.topic));
            unseen.map(|wire| (wire.topic.clone(), wire.must_exist)).collect()
        };
        let mut missing = HashSet::new();
        for (topic, must_exist) in unseen {
            let mut lookups = if must_exist { TOPIC_LOOKUPS } else { 1 };
            loop {
                lookups -= 1;
                let name = topic.clone();
                if self.cluster.blocking(move |cluster| cluster.find(&name)).await?.is_some() {
                    lock(&self.known_topics).insert(topic);
                    break;
                }
                if lookups == 0 {
                    missing.insert(topic);
                    break;
                }
                self.cluster.options.runtime.sleep(TOPIC_LOOKUP_PAUSE).await;
            }
        }
        Ok(missing)
    }

    /// Sends messages that were refused together once more, each alone. A topic may allow less than is sent together.
    async fn send_alone(&self, messages: &[&Outgoing]) -> Vec<SendOutcome> {
        let make = async || Publisher::one_per_request(Arc::clone(&self.cluster));
        let publisher = match self.single_publisher.get_or_try_init(make).await {
            Ok(publisher) => publisher,
            Err(error) => return vec![SendOutcome::Retry(error); messages.len()],
        };
        let encode = |outgoing: &&Outgoing| wire(outgoing, &self.cluster.names, self.cluster.options.max_message);
        let wires: Vec<Wire> = match messages.iter().map(encode).collect() {
            Ok(wires) => wires,
            Err(error) => return vec![SendOutcome::Retry(error); messages.len()],
        };
        let outcomes = publisher.publish(wires).await;
        let too_large = || SendOutcome::Unroutable("kafka refused the message: it is too large for its topic".into());
        let outcome = |(outcome, outgoing): (PublishOutcome, &&Outgoing)| match outcome {
            PublishOutcome::Done => SendOutcome::Done,
            PublishOutcome::Missing => missing(outgoing),
            PublishOutcome::TooLarge => too_large(),
            PublishOutcome::Other(outcome) => outcome,
        };
        outcomes.into_iter().zip(messages).map(outcome).collect()
    }

    /// One outcome per record.
    async fn publish(&self, wires: Vec<Wire>) -> Vec<PublishOutcome> {
        let missing = match self.missing(&wires).await {
            Ok(missing) => missing,
            Err(error) => return vec![PublishOutcome::Other(SendOutcome::Retry(error)); wires.len()],
        };
        if missing.is_empty() {
            return self.publisher.publish(wires).await;
        }
        let there: Vec<bool> = wires.iter().map(|wire| !missing.contains(&wire.topic)).collect();
        let sent = wires.into_iter().zip(&there).filter_map(|(wire, there)| there.then_some(wire)).collect();
        let mut outcomes = self.publisher.publish(sent).await.into_iter();
        let mut next = || outcomes.next().unwrap_or_else(|| PublishOutcome::Other(no_outcome()));
        there.iter().map(|there| if *there { next() } else { PublishOutcome::Missing }).collect()
    }
}

fn no_outcome() -> SendOutcome {
    SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome"))
}

fn backlog(cluster: &Cluster, queue: &str) -> Result<u64> {
    let group = cluster.group_reader(&cluster.names.group(queue))?;
    let subscriptions = subscriptions::read(cluster, queue)?;
    let mut topics = vec![(cluster.names.queue(queue)?, None)];
    for event in subscriptions.events() {
        topics.push((cluster.names.event(event)?, Some(event)));
    }
    let mut waiting = 0;
    for (topic, event) in topics {
        let count = cluster.find(&topic)?.map_or(0, |known| known.partitions);
        let topic: Arc<str> = topic.into();
        let partitions: Vec<_> = (0..count).map(|n| TopicPartition::new(Arc::clone(&topic), n)).collect();
        for (partition, note) in partitions.iter().zip(committed(&group, &partitions)?) {
            let (low, high) = cluster.ends(partition)?;
            let note = note.unwrap_or_else(|| OffsetNote::at(low));
            let number = partition.partition;
            let ranges = event.map_or_else(|| vec![(low, high)], |event| subscriptions.ranges(event, number));
            let count = |(from, until): &(i64, i64)| note.unfinished(*from.max(&low), (*until).min(high));
            waiting += ranges.iter().map(count).sum::<i64>();
        }
    }
    Ok(u64::try_from(waiting).unwrap_or(0))
}

impl fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTransport").field("options", &self.cluster.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for KafkaTransport {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.max_message = self.cluster.options.max_message;
        // their topics would have to be created
        capabilities.reply_queues = self.cluster.options.tokens.is_none();
        capabilities
    }

    fn database(&self) -> Option<&DatabaseId> {
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        crate::refuse(topology, &self.capabilities())?;
        let Some(queue) = &topology.queue else { return Ok(()) };
        let topic = self.cluster.names.queue(queue)?;
        if topology.temporary {
            if !topology.subscriptions.is_empty() {
                return Err(Error::unsupported("a reply queue on kafka has no subscriptions"));
            }
            self.topics.ensure(&topic, TopicKind::Replies).await?;
            lock(&self.temporary).insert(queue.clone());
            return Ok(());
        }
        self.topics.ensure(&topic, TopicKind::Work).await?;
        subscriptions::apply(&self.cluster, &self.topics, queue, &topology.subscriptions).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        check_name("queue", &options.queue)?;
        let single = lock(&self.temporary).contains(&options.queue);
        let receiver = KafkaReceiver::start(Arc::clone(&self.cluster), options, single).await?;
        let mut receivers = lock(&self.receivers);
        receivers.retain(|known| known.strong_count() > 0);
        receivers.push(Arc::downgrade(receiver.state()));
        Ok(Arc::new(receiver))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if let Err(error) = self.open() {
            return vec![SendOutcome::Retry(error); batch.len()];
        }
        let mut refused: Vec<Option<String>> = vec![None; batch.len()];
        let mut wires = Vec::with_capacity(batch.len());
        let mut topics = Vec::with_capacity(batch.len());
        for (outgoing, refused) in batch.iter().zip(&mut refused) {
            match wire(outgoing, &self.cluster.names, self.cluster.options.max_message) {
                Ok(wire) => {
                    topics.push(wire.topic.clone());
                    wires.push(wire);
                }
                Err(error) => *refused = Some(error.to_string()),
            }
        }
        let mut published = self.publish(wires).await.into_iter().zip(topics);
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut alone = Vec::new();
        for (outgoing, refused) in batch.iter().zip(refused) {
            outcomes.push(match refused {
                Some(text) => SendOutcome::Unroutable(text),
                None => match published.next() {
                    Some((PublishOutcome::Done, _)) => SendOutcome::Done,
                    Some((PublishOutcome::Missing, topic)) => {
                        lock(&self.known_topics).remove(&topic);
                        missing(outgoing)
                    }
                    Some((PublishOutcome::TooLarge, _)) => {
                        alone.push((outcomes.len(), outgoing));
                        no_outcome()
                    }
                    Some((PublishOutcome::Other(outcome), _)) => outcome,
                    None => no_outcome(),
                },
            });
        }
        if !alone.is_empty() {
            let (indices, messages): (Vec<usize>, Vec<&Outgoing>) = alone.into_iter().unzip();
            for (at, outcome) in indices.into_iter().zip(self.send_alone(&messages).await) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let limit = Duration::from_secs(2);
        self.cluster.blocking(move |cluster| cluster.reach(limit)).await?;
        let receivers: Vec<Arc<ReceiverState>> = lock(&self.receivers).iter().filter_map(Weak::upgrade).collect();
        receivers.iter().find_map(|receiver| receiver.halted()).map_or(Ok(()), Err)
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.publisher.close().await;
        if let Some(alone) = self.single_publisher.get() {
            alone.close().await;
        }
        let queues = std::mem::take(&mut *lock(&self.temporary));
        let topics: Vec<String> = queues.iter().filter_map(|queue| self.cluster.names.queue(queue).ok()).collect();
        self.topics.remove(&topics).await;
    }
}

/// The outcome for a missing topic. An event's topic is made with the first subscription: without one, the event has no
/// subscriber.
fn missing(outgoing: &Outgoing) -> SendOutcome {
    match &outgoing.to {
        Destination::Queue(name) => SendOutcome::Unroutable(format!("queue {name} does not exist")),
        Destination::Topic(_) => SendOutcome::Done,
    }
}
