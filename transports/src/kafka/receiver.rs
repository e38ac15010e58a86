//! The receiving end of a queue.

use super::{
    client::{Home, unusable},
    desk::Desk,
    keeper::Keeper,
    lane::Start,
    progress::Note,
    session,
    subscriptions::{self, Subscriptions},
    watch::Watch,
};
use crate::lock;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sagabus_core::{Delivery, Error, ErrorKind, ReceiveOptions, Receiver, Result, Settle, Settlement};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock},
    thread::Thread,
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// A requeued message waits for so long, and up to as much again.
const REQUEUE_PAUSE: Duration = Duration::from_millis(40);

/// How long a clean end waits for the cluster.
const PATIENCE: Duration = Duration::from_secs(5);

/// Dropping it without a [`close`](Receiver::close) is a crash: it leaves the group, and what was in flight comes again,
/// as suspect.
pub(super) struct KafkaReceiver {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) home: Arc<Home>,
    pub(super) queue: String,
    /// The topics that are read, and the type of event that each one is for.
    pub(super) topics: HashMap<Arc<str>, Option<String>>,
    subscriptions: Subscriptions,
    pub(super) desk: Mutex<Desk>,
    /// Something arrived, or the window opened.
    pub(super) arrived: Notify,
    phase: watch::Sender<Phase>,
    ended: watch::Sender<bool>,
    thread: OnceLock<Thread>,
    /// For the next `next`.
    error: Mutex<Option<Error>>,
    /// For every `next` from now on: a person is needed.
    halted: Mutex<Option<Error>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Closing,
    Dropped,
}

impl Shared {
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn patience(&self) -> Duration {
        PATIENCE
    }

    /// Lets the next `next` fail.
    pub(super) fn report(&self, error: Error) {
        *lock(&self.error) = Some(error);
        self.arrived.notify_waiters();
    }

    /// Lets every `next` fail, until somebody has seen to it.
    pub(super) fn halt(&self, error: Error) {
        tracing::error!(queue = self.queue, %error, "receiving from kafka has halted");
        *lock(&self.halted) = Some(error);
        self.arrived.notify_waiters();
    }

    /// Why it has halted.
    pub(super) fn halted(&self) -> Option<Error> {
        lock(&self.halted).clone()
    }

    /// The thread has ended: nothing comes any more.
    fn end(&self) {
        self.arrived.notify_waiters();
        self.ended.send_replace(true);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Which offsets of a partition are wanted; `None` for all.
    pub(super) fn wanted(&self, topic: &str, partition: i32) -> Option<Vec<(i64, i64)>> {
        let event = self.topics.get(topic)?.as_ref()?;
        Some(self.subscriptions.ranges(event, partition))
    }

    /// What there is, or until when to wait.
    fn take(&self, max: usize) -> Result<(Vec<Delivery>, Option<Duration>)> {
        let runtime = &self.home.options.runtime;
        let (taken, due, wake) = {
            let mut desk = lock(&self.desk);
            if desk.stopped {
                return Err(Error::closed(format!("the receiver of queue {} is stopped", self.queue)));
            }
            if let Some(error) = self.halted() {
                return Err(error);
            }
            let now = runtime.elapsed();
            let taken = desk.take(max, now);
            (taken, desk.due().map(|due| due.saturating_sub(now)), desk.urgent() || desk.relieved())
        };
        if wake {
            self.wake();
        }
        if taken.is_empty()
            && let Some(error) = lock(&self.error).take()
        {
            return Err(error);
        }
        Ok((taken, due))
    }
}

impl KafkaReceiver {
    /// Joins the endpoint's group. A queue with one process (`single`) has no group: all of it is read from its start.
    pub(super) async fn start(home: Arc<Home>, options: ReceiveOptions, single: bool) -> Result<Self> {
        let queue = options.queue.clone();
        let prepared = home.blocking(move |home| prepare(home, &queue, single)).await?;
        let (topics, subscriptions, consumer) = prepared;
        let epochs = home.options.runtime.random() >> 16;
        let mut desk = Desk::new(options.window, options.ordered, epochs);
        if single {
            for topic in topics.keys() {
                let place = (Arc::clone(topic), 0);
                let note = Note::at(0);
                desk.assign(Start { place, note, suspect_until: 0, wanted: None, durable: false, position: None });
            }
        }
        let shared = Arc::new(Shared {
            queue: options.queue,
            topics,
            subscriptions,
            desk: Mutex::new(desk),
            arrived: Notify::new(),
            phase: watch::Sender::new(Phase::Running),
            ended: watch::Sender::new(false),
            thread: OnceLock::new(),
            error: Mutex::default(),
            halted: Mutex::default(),
            home,
        });
        let positions = options.offsets.filter(|_| !single);
        let watch = Arc::clone(consumer.context());
        let keeper = positions.map(|positions| Keeper::start(positions, Arc::clone(&shared), watch));
        let running = Arc::clone(&shared);
        let work = move || {
            let session = || session::run(Arc::clone(&running), consumer, keeper);
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
        // set once, here
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self { shared })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn end(&self, phase: Phase) {
        self.shared.phase.send_if_modified(|now| {
            let running = *now == Phase::Running;
            if running {
                *now = phase;
            }
            running
        });
        self.shared.wake();
    }
}

type Prepared = (HashMap<Arc<str>, Option<String>>, Subscriptions, BaseConsumer<Watch>);

fn prepare(home: &Home, queue: &str, single: bool) -> Result<Prepared> {
    let topic = home.names.queue(queue)?;
    if home.find(&topic)?.is_none() {
        return Err(Error::new(ErrorKind::NotFound, format!("queue {queue} does not exist: topic {topic} is missing")));
    }
    let subscriptions = if single { Subscriptions::default() } else { subscriptions::read(home, queue)? };
    let mut topics: HashMap<Arc<str>, Option<String>> = HashMap::from([(Arc::from(topic), None)]);
    for event in subscriptions.events() {
        let topic = home.names.event(event)?;
        if home.find(&topic)?.is_some() {
            topics.insert(Arc::from(topic), Some(event.to_string()));
        }
    }
    let consumer = consumer(home, queue, single)?;
    let doing = |e| super::error::failed(format!("receive from {queue}"), e);
    let names: Vec<&str> = topics.keys().map(|topic| &**topic).collect();
    if !single {
        consumer.subscribe(&names).map_err(doing)?;
    }
    Ok((topics, subscriptions, consumer))
}

fn consumer(home: &Home, queue: &str, single: bool) -> Result<BaseConsumer<Watch>> {
    let options = &home.options;
    let mut config = home.cluster.config();
    config.set("group.id", home.names.group(queue));
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
    config.create_with_context(Watch::new(options.tokens.clone())).map_err(unusable)
}

impl Drop for KafkaReceiver {
    fn drop(&mut self) {
        self.end(Phase::Dropped);
    }
}

#[async_trait]
impl Receiver for KafkaReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        let runtime = &self.shared.home.options.runtime;
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let (deliveries, due) = self.shared.take(max.max(1))?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            match due {
                Some(pause) => {
                    tokio::select! {
                        biased;
                        () = arrived => {}
                        // a timer's granularity is a millisecond: without it this would spin through the last one
                        () = runtime.sleep(pause.max(Duration::from_millis(1))) => {}
                    }
                }
                None => arrived.await,
            }
        }
    }

    /// What is done is written down within a moment. Should the process die before that, it comes again.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<()> {
        let runtime = &self.shared.home.options.runtime;
        let requeued = settlements.iter().any(|s| s.settle == Settle::Requeue);
        let pause = REQUEUE_PAUSE + if requeued { runtime.jitter(REQUEUE_PAUSE) } else { Duration::ZERO };
        lock(&self.shared.desk).settle(&settlements, runtime.elapsed() + pause);
        self.shared.arrived.notify_waiters();
        Ok(())
    }

    async fn stop(&self) {
        lock(&self.shared.desk).stopped = true;
        self.shared.arrived.notify_waiters();
    }

    async fn close(&self) {
        self.stop().await;
        self.end(Phase::Closing);
        let mut ended = self.shared.ended.subscribe();
        let runtime = &self.shared.home.options.runtime;
        if runtime.timeout(PATIENCE * 3, ended.wait_for(|ended| *ended)).await.is_none() {
            tracing::warn!(queue = self.shared.queue, "the receiver did not end in time");
        }
    }
}
