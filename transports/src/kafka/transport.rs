use super::{
    client::{Home, committed},
    encode::{Wire, wire},
    options::KafkaOptions,
    progress::Note,
    publisher::{Publisher, Verdict},
    receiver::{KafkaReceiver, Shared},
    subscriptions,
    topics::{Sort, Topics},
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

/// How often, and after how long, a topic that is missing is looked for again: another broker may know it a moment later.
const LOOKS: (u32, Duration) = (3, Duration::from_millis(60));

/// A Kafka cluster as a transport: see the [module](super) for what it makes of it.
///
/// Dropping it without [`close`](Transport::close) is a crash: sends on their way are unknown, and what was in flight comes
/// again.
pub struct KafkaTransport {
    home: Arc<Home>,
    topics: Topics,
    publisher: Publisher,
    /// For what is too large for its topic only together with others.
    alone: OnceCell<Publisher>,
    /// Topics that were there when we looked.
    known: Mutex<HashSet<String>>,
    /// Reply queues of this process.
    temporary: Mutex<BTreeSet<String>>,
    receivers: Mutex<Vec<Weak<Shared>>>,
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
        let home = Arc::new(Home::new(cluster, options)?);
        let limit = home.options.connect_timeout;
        home.blocking(move |home| home.reach(limit)).await?;
        Ok(Self {
            topics: Topics::new(Arc::clone(&home))?,
            publisher: Publisher::new(Arc::clone(&home))?,
            alone: OnceCell::new(),
            known: Mutex::default(),
            temporary: Mutex::default(),
            receivers: Mutex::default(),
            closed: AtomicBool::new(false),
            home,
        })
    }

    /// How many messages wait for a queue, those that are being handled included, as far as it is written down: what is
    /// known as the group's lag, without what was finished out of order.
    pub async fn backlog(&self, queue: &str) -> Result<u64> {
        self.open()?;
        check_name("queue", queue)?;
        let queue = queue.to_string();
        self.home.blocking(move |home| backlog(home, &queue)).await
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
            let known = lock(&self.known);
            let unseen = wires.iter().filter(|wire| !known.contains(&wire.topic));
            unseen.map(|wire| (wire.topic.clone(), wire.must_exist)).collect()
        };
        let mut missing = HashSet::new();
        for (topic, must_exist) in unseen {
            let mut looks = if must_exist { LOOKS.0 } else { 1 };
            loop {
                looks -= 1;
                let name = topic.clone();
                if self.home.blocking(move |home| home.find(&name)).await?.is_some() {
                    lock(&self.known).insert(topic);
                    break;
                }
                if looks == 0 {
                    missing.insert(topic);
                    break;
                }
                self.home.options.runtime.sleep(LOOKS.1).await;
            }
        }
        Ok(missing)
    }

    /// Sends what was refused in company once more. Who made a topic may have allowed it less than we send together.
    async fn send_alone(&self, messages: &[&Outgoing]) -> Vec<SendOutcome> {
        let publisher = match self.alone.get_or_try_init(async || Publisher::alone(Arc::clone(&self.home))).await {
            Ok(publisher) => publisher,
            Err(error) => return vec![SendOutcome::Retry(error); messages.len()],
        };
        let encode = |outgoing: &&Outgoing| wire(outgoing, &self.home.names, self.home.options.max_message);
        let wires: Vec<Wire> = match messages.iter().map(encode).collect() {
            Ok(wires) => wires,
            Err(error) => return vec![SendOutcome::Retry(error); messages.len()],
        };
        let verdicts = publisher.publish(wires).await;
        let too_large = || SendOutcome::Unroutable("kafka refused the message: it is too large for its topic".into());
        let outcome = |(verdict, outgoing): (Verdict, &&Outgoing)| match verdict {
            Verdict::Done => SendOutcome::Done,
            Verdict::Missing => missing(outgoing),
            Verdict::TooLarge => too_large(),
            Verdict::Other(outcome) => outcome,
        };
        verdicts.into_iter().zip(messages).map(outcome).collect()
    }

    /// One verdict per record.
    async fn publish(&self, wires: Vec<Wire>) -> Vec<Verdict> {
        let missing = match self.missing(&wires).await {
            Ok(missing) => missing,
            Err(error) => return vec![Verdict::Other(SendOutcome::Retry(error)); wires.len()],
        };
        if missing.is_empty() {
            return self.publisher.publish(wires).await;
        }
        let there: Vec<bool> = wires.iter().map(|wire| !missing.contains(&wire.topic)).collect();
        let sent = wires.into_iter().zip(&there).filter_map(|(wire, there)| there.then_some(wire)).collect();
        let mut verdicts = self.publisher.publish(sent).await.into_iter();
        let mut next = || verdicts.next().unwrap_or_else(|| Verdict::Other(lost()));
        there.iter().map(|there| if *there { next() } else { Verdict::Missing }).collect()
    }
}

fn lost() -> SendOutcome {
    SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome"))
}

fn backlog(home: &Home, queue: &str) -> Result<u64> {
    let group = home.onlooker(&home.names.group(queue))?;
    let subscriptions = subscriptions::read(home, queue)?;
    let mut topics = vec![(home.names.queue(queue)?, None)];
    for event in subscriptions.events() {
        topics.push((home.names.event(event)?, Some(event)));
    }
    let mut waiting = 0;
    for (topic, event) in topics {
        let partitions = home.find(&topic)?.map_or(0, |known| known.partitions);
        let places: Vec<(Arc<str>, i32)> = (0..partitions).map(|n| (Arc::from(topic.as_str()), n)).collect();
        for ((_, partition), note) in places.iter().zip(committed(&group, &places)?) {
            let (low, high) = home.ends(&topic, *partition)?;
            let note = note.unwrap_or_else(|| Note::at(low));
            let ranges = event.map_or_else(|| vec![(low, high)], |event| subscriptions.ranges(event, *partition));
            let count = |(from, until): &(i64, i64)| note.unfinished(*from.max(&low), (*until).min(high));
            waiting += ranges.iter().map(count).sum::<i64>();
        }
    }
    Ok(u64::try_from(waiting).unwrap_or(0))
}

impl fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTransport").field("options", &self.home.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for KafkaTransport {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.max_message = self.home.options.max_message;
        // their topics would have to be created
        capabilities.reply_queues = self.home.options.tokens.is_none();
        capabilities
    }

    fn database(&self) -> Option<&DatabaseId> {
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        crate::refuse(topology, &self.capabilities())?;
        let Some(queue) = &topology.queue else { return Ok(()) };
        let topic = self.home.names.queue(queue)?;
        if topology.temporary {
            if !topology.subscriptions.is_empty() {
                return Err(Error::unsupported("a reply queue on kafka has no subscriptions"));
            }
            self.topics.ensure(&topic, Sort::Replies).await?;
            lock(&self.temporary).insert(queue.clone());
            return Ok(());
        }
        self.topics.ensure(&topic, Sort::Work).await?;
        subscriptions::apply(&self.home, &self.topics, queue, &topology.subscriptions).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        check_name("queue", &options.queue)?;
        let single = lock(&self.temporary).contains(&options.queue);
        let receiver = KafkaReceiver::start(Arc::clone(&self.home), options, single).await?;
        let mut receivers = lock(&self.receivers);
        receivers.retain(|known| known.strong_count() > 0);
        receivers.push(Arc::downgrade(receiver.shared()));
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
            match wire(outgoing, &self.home.names, self.home.options.max_message) {
                Ok(wire) => {
                    topics.push(wire.topic.clone());
                    wires.push(wire);
                }
                Err(error) => *refused = Some(error.to_string()),
            }
        }
        let mut verdicts = self.publish(wires).await.into_iter().zip(topics);
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut again = Vec::new();
        for (outgoing, refused) in batch.iter().zip(refused) {
            outcomes.push(match refused {
                Some(text) => SendOutcome::Unroutable(text),
                None => match verdicts.next() {
                    Some((Verdict::Done, _)) => SendOutcome::Done,
                    Some((Verdict::Missing, topic)) => {
                        lock(&self.known).remove(&topic);
                        missing(outgoing)
                    }
                    Some((Verdict::TooLarge, _)) => {
                        again.push((outcomes.len(), outgoing));
                        lost()
                    }
                    Some((Verdict::Other(outcome), _)) => outcome,
                    None => lost(),
                },
            });
        }
        if !again.is_empty() {
            let (places, messages): (Vec<usize>, Vec<&Outgoing>) = again.into_iter().unzip();
            for (at, outcome) in places.into_iter().zip(self.send_alone(&messages).await) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let limit = Duration::from_secs(2);
        self.home.blocking(move |home| home.reach(limit)).await?;
        let receivers: Vec<Arc<Shared>> = lock(&self.receivers).iter().filter_map(Weak::upgrade).collect();
        receivers.iter().find_map(|receiver| receiver.halted()).map_or(Ok(()), Err)
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.publisher.close().await;
        if let Some(alone) = self.alone.get() {
            alone.close().await;
        }
        let queues = std::mem::take(&mut *lock(&self.temporary));
        let topics: Vec<String> = queues.iter().filter_map(|queue| self.home.names.queue(queue).ok()).collect();
        self.topics.remove(&topics).await;
    }
}

/// A topic is made with the first subscription: where there is none, nobody wants the event.
fn missing(outgoing: &Outgoing) -> SendOutcome {
    match &outgoing.to {
        Destination::Queue(name) => SendOutcome::Unroutable(format!("queue {name} does not exist")),
        Destination::Topic(_) => SendOutcome::Done,
    }
}
