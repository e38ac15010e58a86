//! The receiving end of a queue.

use super::{
    cluster::Cluster,
    consumer_context::ReceiverContext,
    error::{failed, unusable},
    in_flight::InFlight,
    offset_store_bridge::OffsetStoreBridge,
    offset_tracker::OffsetNote,
    partition::ResumePoint,
    session,
    shared::{Phase, ReceiverState},
    subscriptions::{self, Subscriptions},
    topic_partition::TopicPartition,
};
use crate::{lock, receive};
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sagabus_core::{Delivery, Error, ErrorKind, ReceiveOptions, Receiver, Result, Settlement};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// How long [`close`](Receiver::close) waits for the thread, which gives up on the cluster before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A receiver of a queue.
///
/// Dropping it without a [`close`](Receiver::close) is a crash: it leaves the group, and what was in flight comes again,
/// as suspect.
pub(super) struct KafkaReceiver {
    state: Arc<ReceiverState>,
}

impl KafkaReceiver {
    /// Joins the endpoint's group. A queue with one process (`single`) has no group: all of it is read from its start.
    pub(super) async fn start(cluster: Arc<Cluster>, options: ReceiveOptions, single: bool) -> Result<Self> {
        let queue = options.queue.clone();
        let (topics, subscriptions, consumer) =
            cluster.blocking(move |cluster| prepare(cluster, &queue, single)).await?;
        let mut in_flight = InFlight::new(options.window, cluster.options.runtime.random() >> 16);
        if single {
            for topic in topics.keys() {
                let partition = TopicPartition::new(Arc::clone(topic), 0);
                let note = OffsetNote::at(0);
                let (suspect_until, wanted, durable, position) = (0, None, false, None);
                in_flight.assign(ResumePoint { partition, note, suspect_until, wanted, durable, position });
            }
        }
        let state = Arc::new(ReceiverState::new(cluster, options.queue, topics, subscriptions, in_flight));
        let offsets = options.offsets.filter(|_| !single);
        let context = Arc::clone(consumer.context());
        let bridge = offsets.map(|offsets| OffsetStoreBridge::start(offsets, Arc::clone(&state), context));
        let running = Arc::clone(&state);
        let work = move || {
            let session = || session::run(Arc::clone(&running), consumer, bridge);
            // rdkafka panics on some of what others may write, as on offsets with text that is not UTF-8
            if catch_unwind(AssertUnwindSafe(session)).is_err() {
                let text = format!("receive from {}: the thread that reads kafka has panicked", running.queue);
                running.halt(Error::new(ErrorKind::Backend, text));
            }
            running.end();
        };
        // librdkafka's calls block, and its callbacks come on the thread that polls: a thread of its own
        let thread = std::thread::Builder::new().name("sagabus-kafka".into()).spawn(work);
        let thread = thread.map_err(|e| Error::with_source(ErrorKind::Transient, "start a thread for kafka", e))?;
        state.set_thread(thread.thread().clone());
        Ok(Self { state })
    }

    pub(super) fn state(&self) -> &Arc<ReceiverState> {
        &self.state
    }
}

type Prepared = (HashMap<Arc<str>, Option<String>>, Subscriptions, BaseConsumer<ReceiverContext>);

fn prepare(cluster: &Cluster, queue: &str, single: bool) -> Result<Prepared> {
    let topic = cluster.names.queue(queue)?;
    if cluster.find(&topic)?.is_none() {
        return Err(Error::new(ErrorKind::NotFound, format!("queue {queue} does not exist: topic {topic} is missing")));
    }
    let subscriptions = if single { Subscriptions::default() } else { subscriptions::read(cluster, queue)? };
    let mut topics: HashMap<Arc<str>, Option<String>> = HashMap::from([(Arc::from(topic), None)]);
    for event in subscriptions.events() {
        let topic = cluster.names.event(event)?;
        if cluster.find(&topic)?.is_some() {
            topics.insert(Arc::from(topic), Some(event.to_string()));
        }
    }
    let consumer = consumer(cluster, queue, single)?;
    let names: Vec<&str> = topics.keys().map(|topic| &**topic).collect();
    if !single {
        consumer.subscribe(&names).map_err(|e| failed(format!("receive from {queue}"), e))?;
    }
    Ok((topics, subscriptions, consumer))
}

fn consumer(cluster: &Cluster, queue: &str, single: bool) -> Result<BaseConsumer<ReceiverContext>> {
    let options = &cluster.options;
    let mut config = cluster.settings.config();
    config.set("group.id", cluster.names.group(queue));
    if !single {
        let session = options.session_timeout;
        config.set("session.timeout.ms", session.as_millis().to_string());
        config.set("heartbeat.interval.ms", (session / 10).as_millis().clamp(300, 3000).to_string());
        config.set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(instance) = &options.instance {
            config.set("group.instance.id", instance);
        }
    }
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "error").set("isolation.level", "read_committed");
    config.set("allow.auto.create.topics", "false");
    // its default, a second without fetching after a full queue, would be most of the time
    config.set("fetch.queue.backoff.ms", "1").set("fetch.wait.max.ms", "100");
    // for each partition, and no more: what is fetched long before its turn has left the processor's caches by then. (A
    // message that is larger than what is fetched comes all the same, alone.)
    config.set("queued.min.messages", "500").set("queued.max.messages.kbytes", "1024");
    config.set("fetch.message.max.bytes", "131072");
    config.create_with_context(ReceiverContext::new(options.tokens.clone())).map_err(unusable)
}

impl Drop for KafkaReceiver {
    fn drop(&mut self) {
        self.state.leave(Phase::Dropped);
    }
}

#[async_trait]
impl Receiver for KafkaReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        let state = &self.state;
        let runtime = &state.cluster.options.runtime;
        receive::next(runtime, &state.arrived, || Ok((state.take(max.max(1))?, None))).await
    }

    /// Commits what is done within a moment. Should the process die before that, it comes again.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        lock(&self.state.in_flight).settle(&settlements);
        self.state.arrived.notify_waiters();
        Ok(())
    }

    async fn stop(&self) {
        lock(&self.state.in_flight).stopped = true;
        self.state.arrived.notify_waiters();
    }

    async fn close(&self) {
        self.stop().await;
        self.state.leave(Phase::Closing);
        let runtime = &self.state.cluster.options.runtime;
        if runtime.timeout(CLOSE_TIMEOUT, self.state.wait_for_end()).await.is_none() {
            tracing::warn!(queue = self.state.queue, "the receiver did not end in time");
        }
    }
}
