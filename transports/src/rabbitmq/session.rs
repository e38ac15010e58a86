//! The supervisor of a receiver: connect, consume, and all over again when anything breaks.
//!
//! A lost connection, a channel that the broker closed, a consumer that it cancelled and a restart of the broker are all
//! the same here: the session ends with an error, its deliveries become void, and the next one begins after a pause.

use super::{
    error::failed,
    link::Live,
    names::short,
    parcel::{Lane, Parcel},
    receiver::{Phase, Shared},
    topology,
};
use crate::lock;
use futures::{
    FutureExt, StreamExt,
    stream::{BoxStream, SelectAll},
};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A session that ended sooner than this ended badly: the next one takes one message at a time for a while. A message that
/// kills the connection then burns its own deliveries and not those of all that were sent ahead with it.
const SHORT: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(5);

/// So does the first one of a process, for a moment: it may have been ended by a message, together with all its
/// predecessors.
const FIRST: Duration = Duration::from_millis(100);

/// For how long a receiver that could not be started is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How long an ack may wait behind a gap; twice that at most.
const TICK: Duration = Duration::from_millis(20);

/// Most deliveries taken in under one lock.
const CHUNK: usize = 256;

/// Runs sessions until the receiver is closed. It is told when the first one works, or that none does.
pub(super) async fn run(shared: Arc<Shared>, first: oneshot::Sender<Result<()>>) {
    let mut first = Some(first);
    let runtime = shared.home.options.runtime.clone();
    let (mut gentle, mut failures) = (Some(FIRST), 0u32);
    let begun = runtime.elapsed();
    loop {
        let start = runtime.elapsed();
        let ended = Session::run(&shared, gentle, &mut first).await;
        lock(&shared.desk).lost();
        shared.arrived.notify_waiters();
        shared.quiet.notify_waiters();
        let Err(error) = ended else { return };
        if error.is_closed() {
            return shared.end();
        }
        // one poisonous message must not keep an endpoint from starting: it wears out its own deliveries first
        if (!error.is_transient() || runtime.elapsed() - begun > PATIENCE)
            && let Some(first) = first.take()
        {
            // whoever asked gets the error, and no receiver
            let _ = first.send(Err(error));
            return;
        }
        let lived = runtime.elapsed() - start;
        gentle = (lived < SHORT).then_some(SLOW);
        failures = if gentle.is_some() { failures + 1 } else { 0 };
        tracing::warn!(queue = shared.queue, %error, "receiving from rabbitmq was interrupted");
        if error.is_not_found() {
            shared.home.restore(&shared.queue).await;
        }
        shared.report(error);
        let pause = (TICK * 2u32.saturating_pow(failures.min(10))).min(MOST_PAUSE);
        let mut phase = shared.phase.subscribe();
        tokio::select! {
            () = runtime.sleep(TICK + runtime.jitter(pause)) => {}
            // the result is no error while `shared` lives
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "nearly every item is a delivery")]
enum Item {
    Delivery(Lane, Delivery),
    Broken(lapin::Error),
    /// The consumer with this number gets nothing more.
    Ended(usize),
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    channel: Channel,
    streams: SelectAll<BoxStream<'static, Item>>,
    /// (number, lane, tag) of the consumers at work.
    consumers: Vec<(usize, Lane, ShortString)>,
    numbers: usize,
}

impl Session<'_> {
    async fn run(
        shared: &Arc<Shared>,
        gentle: Option<Duration>,
        first: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let live = shared.home.consume.get(true).await?;
        let lanes = lanes(shared, &live).await?;
        let channel = topology::open(&live).await?;
        let mut session = Session { shared, channel, streams: SelectAll::new(), consumers: Vec::new(), numbers: 0 };
        lock(&shared.desk).begin(session.channel.clone());
        session.consume(&lanes, if gentle.is_some() { 1 } else { shared.prefetch }).await?;
        shared.clear();
        if let Some(first) = first.take() {
            // if nobody waits any more, the receiver is dropped and this task with it
            let _ = first.send(Ok(()));
        }
        session.work(&lanes, gentle).await
    }

    /// Consumers with this prefetch, which is per consumer.
    async fn consume(&mut self, lanes: &[(Lane, String)], prefetch: u16) -> Result<()> {
        let doing = || format!("consume queue {}", self.shared.queue);
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(|e| failed(doing(), e))?;
        for (lane, queue) in lanes {
            self.numbers += 1;
            let (lane, number) = (*lane, self.numbers);
            let tag = short(&format!("sagabus-{number}"))?;
            let consumer = self
                .channel
                .basic_consume(short(queue)?, tag.clone(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(|e| failed(format!("consume queue {queue}"), e))?;
            let items = consumer.map(move |delivery| match delivery {
                Ok(delivery) => Item::Delivery(lane, delivery),
                Err(error) => Item::Broken(error),
            });
            self.streams.push(items.chain(futures::stream::once(async move { Item::Ended(number) })).boxed());
            self.consumers.push((number, lane, tag));
        }
        Ok(())
    }

    async fn cancel(&mut self, which: impl Fn(usize, Lane) -> bool) -> Result<()> {
        let (gone, stay) = self.consumers.drain(..).partition(|(number, lane, _)| which(*number, *lane));
        self.consumers = stay;
        let gone: Vec<(usize, Lane, ShortString)> = gone;
        for (_, _, tag) in gone {
            let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default()).await;
            cancelled.map_err(|e| failed(format!("stop consuming queue {}", self.shared.queue), e))?;
        }
        Ok(())
    }

    async fn work(&mut self, lanes: &[(Lane, String)], gentle: Option<Duration>) -> Result<()> {
        let shared = self.shared;
        let runtime = &shared.home.options.runtime;
        let mut phase = shared.phase.subscribe();
        let mut tick = Box::pin(runtime.sleep(TICK));
        let mut speed_up = Box::pin(runtime.sleep(gentle.unwrap_or(SLOW)));
        let (mut ticking, mut slow, mut stopped) = (false, gentle.is_some(), false);
        loop {
            let now = *phase.borrow_and_update();
            if now != Phase::Running && !stopped {
                stopped = true;
                self.cancel(|_, lane| lane != Lane::Ordered).await?;
                self.drain()?;
                lock(&shared.desk).cancel();
                shared.quiet.notify_waiters();
            }
            if now == Phase::Closing {
                return self.close().await;
            }
            tokio::select! {
                item = self.streams.next() => self.take_in(item)?,
                // an error would mean that the receiver is gone, and this task with it
                _ = phase.changed() => {}
                () = shared.straggling.notified(), if !ticking => {
                    ticking = true;
                    tick = Box::pin(runtime.sleep(TICK));
                }
                () = &mut tick, if ticking => {
                    ticking = lock(&shared.desk).flush(true);
                    tick = Box::pin(runtime.sleep(TICK));
                }
                () = &mut speed_up, if slow && !stopped => {
                    slow = false;
                    let before = self.numbers;
                    self.consume(lanes, shared.prefetch).await?;
                    self.cancel(|number, _| number <= before).await?;
                }
            }
        }
    }

    /// What is there already, before the desk is told that there is no more.
    fn drain(&mut self) -> Result<()> {
        while let Some(item) = self.streams.next().now_or_never() {
            if item.is_none() {
                break;
            }
            self.take_in(item)?;
        }
        Ok(())
    }

    /// An item, and whatever else has come, under one lock.
    fn take_in(&mut self, item: Option<Item>) -> Result<()> {
        let mut next = item;
        let mut desk = lock(&self.shared.desk);
        let mut outcome = Ok(());
        for number in 1..=CHUNK {
            match next {
                Some(Item::Delivery(lane, delivery)) => {
                    desk.push(delivery.delivery_tag, Parcel::new(lane, delivery));
                }
                Some(Item::Broken(error)) => {
                    outcome = Err(failed(format!("receive from queue {}", self.shared.queue), error));
                    break;
                }
                Some(Item::Ended(number)) if self.consumers.iter().any(|(n, _, _)| *n == number) => {
                    let text =
                        format!("rabbitmq cancelled the consumer of queue {}: was it deleted?", self.shared.queue);
                    outcome = Err(Error::new(ErrorKind::NotFound, text));
                    break;
                }
                Some(Item::Ended(_)) => {}
                None => break,
            }
            if number == CHUNK {
                break;
            }
            match self.streams.next().now_or_never() {
                Some(item @ Some(_)) => next = item,
                _ => break,
            }
        }
        drop(desk);
        self.shared.arrived.notify_waiters();
        outcome
    }

    /// Acks that were pushed before are handled by the broker before the channel is; what is left goes back in its order,
    /// and with the same step the next consumer of each partition begins.
    async fn close(&mut self) -> Result<()> {
        lock(&self.shared.desk).flush(true);
        lock(&self.shared.desk).flush(true);
        let bye = self.channel.close(200, "the receiver is closed".into());
        match self.shared.home.options.runtime.timeout(Duration::from_secs(5), bye).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "the channel was closed already"),
            None => tracing::warn!(queue = self.shared.queue, "rabbitmq does not answer: the channel was not closed"),
        }
        Ok(())
    }
}

/// The queues that this receiver consumes: its own, the partitions, and the broker's dead letters.
async fn lanes(shared: &Shared, live: &Live) -> Result<Vec<(Lane, String)>> {
    let (names, queue) = (&shared.home.names, &shared.queue);
    let mut lanes = vec![(Lane::Free, names.queue(queue))];
    if shared.home.revive(live, queue).await? {
        return Ok(lanes);
    }
    let (partitions, errors) = topology::probe(live, names, queue).await?;
    lanes.extend((0..partitions).map(|number| (Lane::Ordered, names.partition(queue, number))));
    if errors {
        lanes.push((Lane::Dead, names.error(queue)));
    }
    Ok(lanes)
}
