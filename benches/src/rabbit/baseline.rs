//! The best program without a framework: lapin and sqlx, with an inbox, versions, and an outbox that is emptied by the next
//! commit. One task receives; workers own the keys, with a database connection and a publishing channel each.

use super::{
    Broker, IN, OUT, sink,
    window::{Acks, publish},
};
use crate::{
    args::Spec,
    baseline::brokered::{self, Database, databases, handle},
    feed::{Sender, feed, preload},
    latency::Clock,
    measure::Span,
    payload::{Input, key_of},
    postgres::{Meter, is_postgres},
    profile::Profile,
    report::Side,
};
use anyhow::{Context as _, Result};
use futures::{FutureExt as _, StreamExt as _};
use lapin::{
    BasicProperties, Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::mpsc;

/// What is under way at most.
const PREFETCH: u16 = 2000;

struct Message {
    tag: u64,
    id: uuid::Uuid,
    input: Input,
}

/// What the workers share.
struct Shop {
    spec: Spec,
    through: AtomicU64,
    acks: Mutex<Acks>,
    consuming: Channel,
    out: ShortString,
}

impl Shop {
    /// The frame is pushed when the call is polled first, so that is done under the lock: of two workers the one that
    /// acknowledges less could otherwise come second, and the broker closes a channel on which a tag is acknowledged twice.
    async fn acknowledge(&self, tags: &[u64]) -> Result<()> {
        let pushed = {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(tag) = acks.done(tags) else { return Ok(()) };
            let mut ack = Box::pin(self.consuming.basic_ack(tag, BasicAckOptions { multiple: true }));
            match (&mut ack).now_or_never() {
                Some(done) => return Ok(done?),
                None => ack,
            }
        };
        Ok(pushed.await?)
    }
}

/// Handles everything that is in the queue, or comes into it.
pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    let mut spec = spec.clone();
    spec.batch = if spec.batch == 0 { 200 } else { spec.batch };
    spec.ahead = spec.ahead.max(1);
    let url = spec.transport.clone().context("the twin's broker")?;
    let (receiving, sending) = (Broker::connect(&url).await?, Broker::connect(&url).await?);
    for queue in [IN, OUT] {
        receiving.declare(queue).await?;
    }
    let databases = databases(&spec).await?;
    let clock = Clock::start();
    let feeder = Feeder { channel: sending.channel().await?, queue: sending.name(IN).into(), keys: spec.keys };
    feeder.channel.confirm_select(Default::default()).await?;
    if !spec.feed.is_live() {
        preload(&feeder, spec.messages).await?;
    }
    let seen = Arc::new(AtomicU64::new(0));
    let output_reader = spec.feed.is_live().then(|| {
        let (url, seen, messages) = (url.clone(), seen.clone(), spec.messages);
        tokio::spawn(async move { sink::read_outputs(&url, OUT, messages, clock, &seen).await })
    });
    let consuming = receiving.channel().await?;
    consuming.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let shop = Arc::new(Shop {
        spec: spec.clone(),
        through: AtomicU64::new(0),
        acks: Mutex::default(),
        consuming: consuming.clone(),
        out: receiving.name(OUT).into(),
    });
    let mut workers = Vec::new();
    let mut inboxes = Vec::new();
    for database in databases {
        let (inbox, messages) = mpsc::unbounded_channel();
        let channel = sending.channel().await?;
        channel.confirm_select(Default::default()).await?;
        inboxes.push(inbox);
        workers.push(tokio::spawn(work(shop.clone(), database, channel, messages)));
    }
    let meter = if is_postgres(&spec.store) { Meter::start(&spec.store).await? } else { None };
    let profile = Profile::start();
    let name = receiving.name(IN).into();
    let consumer =
        consuming.basic_consume(name, "twin".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    let span = Span::start();
    let dispatcher = tokio::spawn(dispatch(shop.clone(), consumer, inboxes));
    let generator = tokio::spawn(feed(feeder, spec.clone(), clock, seen));
    let mut commits = 0;
    for worker in workers {
        commits += worker.await??;
    }
    let mut side = Side::measured(&span, spec.messages, commits);
    drop(profile);
    if let Some(meter) = meter {
        meter.stop(spec.messages, &mut side.more).await?;
    }
    generator.await??;
    if let Some(output_reader) = output_reader {
        side.latencies = output_reader.await??.into_micros();
    }
    dispatcher.await??;
    consuming.close(200, "done".into()).await?;
    brokered::audit(&spec, sink::left(&url, IN).await?, sink::count(&url, OUT).await?).await?;
    Ok(side)
}

/// To the worker that owns the key, until all are through.
async fn dispatch(
    shop: Arc<Shop>,
    mut consumer: lapin::Consumer,
    workers: Vec<mpsc::UnboundedSender<Message>>,
) -> Result<()> {
    let mut count = 0;
    while count < shop.spec.messages {
        let delivery = consumer.next().await.context("the input queue is gone")??;
        let id = delivery.properties.message_id().as_ref().context("an input without an id")?.as_str().parse()?;
        let input: Input = serde_json::from_slice(&delivery.data)?;
        let owner = usize::try_from(input.key).unwrap_or(0) % workers.len();
        // a worker that failed says so itself
        let _ = workers[owner].send(Message { tag: delivery.delivery_tag, id, input });
        count += 1;
    }
    Ok(())
}

/// Takes what has come meanwhile, commits it, publishes, acknowledges.
async fn work(
    shop: Arc<Shop>,
    mut database: Option<Database>,
    channel: Channel,
    mut messages: mpsc::UnboundedReceiver<Message>,
) -> Result<u64> {
    let (mut commits, mut sent) = (0, Vec::new());
    let mut taken = Vec::new();
    while messages.recv_many(&mut taken, shop.spec.batch).await > 0 {
        let tags: Vec<u64> = taken.iter().map(|message| message.tag).collect();
        let messages = taken.drain(..).map(|message| (message.id, message.input));
        let mut batch = handle(&mut database, messages, shop.spec.work).await?;
        batch.sent = std::mem::take(&mut sent);
        let outputs = std::mem::take(&mut batch.outputs);
        if let Some(database) = &mut database {
            database.commit(batch, &outputs).await?;
            commits += 1;
        }
        publish(&channel, &shop.out, &outputs).await?;
        sent = outputs.iter().map(|(id, _)| *id).collect();
        shop.acknowledge(&tags).await?;
        shop.through.fetch_add(tags.len() as u64, Ordering::AcqRel);
    }
    if let Some(database) = &mut database {
        database.forget(sent).await?;
    }
    Ok(commits)
}

/// Sends the inputs.
struct Feeder {
    channel: Channel,
    queue: ShortString,
    keys: u64,
}

impl Sender for Feeder {
    async fn send(&self, inputs: &[(u64, u64)]) -> Result<()> {
        let mut bodies = Vec::with_capacity(inputs.len());
        for (seq, at) in inputs {
            bodies.push(serde_json::to_vec(&Input::new(key_of(*seq, self.keys), *seq, *at))?);
        }
        let sends = bodies.iter().map(|body| {
            let id = uuid::Uuid::now_v7().to_string();
            let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            self.channel.basic_publish("".into(), self.queue.clone(), options, body, properties)
        });
        for confirm in futures::future::join_all(sends).await {
            anyhow::ensure!(confirm?.await?.is_ack(), "the broker did not take an input");
        }
        Ok(())
    }
}
