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
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A session that ended sooner than this ended badly.
const SHORT: Duration = Duration::from_secs(10);

/// After that the partitions of an ordered endpoint send one message at a time for so long.
const SLOW: Duration = Duration::from_secs(5);

/// After so long more are sent ahead, if not so many were settled before.
const WIDEN: Duration = Duration::from_millis(200);

/// So many times as many.
const STEP: u16 = 8;

/// How a session begins. A message that ends the connection or the process counts a delivery of all that were sent ahead
/// with it; and so does whatever else ends processes again and again. So a session begins with one message, and goes on
/// to a few times as many as it has settled: then a message wears out few more deliveries than were handled before it. (Or
/// after a moment, for handlers that take their time.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The first one of this process: it may have been ended by a message.
    First,
    /// After one that ended badly.
    Careful,
    /// After one that lasted.
    Full,
}

/// How a session ended, if not by an error.
enum End {
    Closed,
    /// It was careful for long enough.
    Again,
}

/// For how long a receiver that could not be started is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How long an ack may wait behind a gap; twice that at most.
const TICK: Duration = Duration::from_millis(100);

/// About so many deliveries are taken in under one lock: less than twice as many.
const CHUNK: usize = 256;

/// With plenty at hand: how long nothing is read at most. Then a chunk is, and with it the end of the first consumer of a queue
/// that was deleted, which has one message ahead of it.
const REST: Duration = Duration::from_millis(100);

/// Runs sessions until the receiver is closed. It is told when the first one works, or that none does.
pub(super) async fn run(shared: Arc<Shared>, first: oneshot::Sender<Result<()>>) {
    let mut first = Some(first);
    let runtime = shared.home.options.runtime.clone();
    let (mut how, mut failures) = (Start::First, 0u32);
    let begun = runtime.elapsed();
    loop {
        let start = runtime.elapsed();
        let ended = Session::run(&shared, how, &mut first).await;
        lock(&shared.desk).lost();
        shared.arrived.notify_waiters();
        shared.quiet.notify_waiters();
        let error = match ended {
            Ok(End::Closed) => return,
            Ok(End::Again) => {
                how = Start::Full;
                continue;
            }
            Err(error) => error,
        };
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
        how = if lived < SHORT { Start::Careful } else { Start::Full };
        failures = if how == Start::Careful { failures + 1 } else { 0 };
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

enum Item {
    /// With its tag.
    Message(u64, Parcel),
    Broken(lapin::Error),
    /// The consumer with this number gets nothing more.
    Ended(usize),
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    channel: Channel,
    /// What has come meanwhile, together: one by one each would cost the way through the selection.
    streams: SelectAll<BoxStream<'static, Vec<Item>>>,
    /// (number, lane, tag) of the consumers at work.
    consumers: Vec<(usize, Lane, ShortString)>,
    numbers: usize,
}

impl Session<'_> {
    async fn run(shared: &Arc<Shared>, how: Start, first: &mut Option<oneshot::Sender<Result<()>>>) -> Result<End> {
        let live = shared.home.consume.get(true).await?;
        let lanes = lanes(shared, &live).await?;
        let channel = topology::open(&live).await?;
        let mut session = Session { shared, channel, streams: SelectAll::new(), consumers: Vec::new(), numbers: 0 };
        lock(&shared.desk).begin(session.channel.clone());
        let full = shared.prefetch;
        let ahead = |lane| match (lane, how) {
            (Lane::Dead, _) | (Lane::Free, Start::First | Start::Careful) | (Lane::Ordered, Start::Careful) => 1,
            (Lane::Free, Start::Full) | (Lane::Ordered, Start::First | Start::Full) => full,
        };
        session.consume(&lanes, ahead).await?;
        shared.clear();
        if let Some(first) = first.take() {
            // if nobody waits any more, the receiver is dropped and this task with it
            let _ = first.send(Ok(()));
        }
        session.work(&lanes, how).await
    }

    /// Consumers, each with its prefetch.
    async fn consume(&mut self, lanes: &[(Lane, String)], prefetch: impl Fn(Lane) -> u16) -> Result<()> {
        let doing = || format!("consume queue {}", self.shared.queue);
        for (lane, queue) in lanes {
            // it holds for the consumers that begin after it
            let prefetch = self.channel.basic_qos(prefetch(*lane), BasicQosOptions::default()).await;
            prefetch.map_err(|e| failed(doing(), e))?;
            self.numbers += 1;
            let (lane, number) = (*lane, self.numbers);
            let tag = short(format!("sagabus-{number}"))?;
            let consumer = self
                .channel
                .basic_consume(short(queue)?, tag.clone(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(|e| failed(format!("consume queue {queue}"), e))?;
            let shared = Arc::clone(self.shared);
            let items = consumer.map(move |delivery| match delivery {
                Ok(delivery) => Item::Message(delivery.delivery_tag, shared.decoder.parcel(lane, delivery)),
                Err(error) => Item::Broken(error),
            });
            let items = items.chain(futures::stream::once(async move { Item::Ended(number) }));
            self.streams.push(items.ready_chunks(CHUNK).boxed());
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

    async fn work(&mut self, lanes: &[(Lane, String)], how: Start) -> Result<End> {
        let shared = self.shared;
        let runtime = &shared.home.options.runtime;
        let mut phase = shared.phase.subscribe();
        let mut tick = Box::pin(runtime.sleep(TICK));
        let full = shared.prefetch;
        let mut level = if how == Start::Full { full } else { 1 };
        lock(&shared.desk).faster_after(u64::from(level));
        let mut widen = Box::pin(runtime.sleep(WIDEN));
        // never by another consumer: while one is exchanged for the other, the next process would take the partition over
        let ordered = lanes.iter().any(|(lane, _)| *lane == Lane::Ordered);
        let again = ordered && how == Start::Careful;
        let mut slow = Box::pin(runtime.sleep(SLOW));
        let mut rest = Box::pin(runtime.sleep(REST));
        let (mut ticking, mut stopped, mut resting) = (false, false, false);
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
                return self.close().await.map(|()| End::Closed);
            }
            let mut faster = false;
            tokio::select! {
                // when all have ended there is always the next nothing, at once: this would never wait again, nor let others run
                items = self.streams.next(), if !resting && !self.streams.is_empty() => {
                    // the partitions' consumers each have their own queue, whose end would lie behind thousands of messages; and
                    // what one of them has unread would be the gap before which the acks of all others wait
                    resting = self.take_in(items.unwrap_or_default())? && !ordered;
                    if resting {
                        rest = Box::pin(runtime.sleep(REST));
                    }
                }
                () = shared.hungry.notified(), if resting => resting = false,
                () = &mut rest, if resting => resting = false,
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
                () = shared.faster.notified(), if level < full && !stopped => faster = true,
                () = &mut widen, if level < full && !stopped => faster = true,
                () = &mut slow, if again && !stopped => {
                    self.close().await?;
                    return Ok(End::Again);
                }
            }
            if faster {
                let wider = level.saturating_mul(STEP).min(full);
                self.widen(lanes, wider - level).await?;
                level = wider;
                lock(&shared.desk).faster_after(u64::from(level));
                widen = Box::pin(runtime.sleep(WIDEN));
            }
        }
    }

    /// One more consumer of what has no order, for so many more messages. (Not another one in the place of the last: what
    /// is on its way to a consumer that is cancelled comes back as if it had been in the hands of one that died.)
    async fn widen(&mut self, lanes: &[(Lane, String)], more: u16) -> Result<()> {
        let free: Vec<(Lane, String)> = lanes.iter().filter(|(lane, _)| *lane == Lane::Free).cloned().collect();
        self.consume(&free, |_| more).await
    }

    /// What is there already, before the desk is told that there is no more.
    fn drain(&mut self) -> Result<()> {
        while let Some(Some(items)) = self.streams.next().now_or_never() {
            self.take_in(items)?;
        }
        Ok(())
    }

    /// Some items, and whatever else has come, under one lock. Answers whether that is plenty.
    fn take_in(&mut self, mut items: Vec<Item>) -> Result<bool> {
        while items.len() < CHUNK
            && let Some(Some(more)) = self.streams.next().now_or_never()
        {
            items.extend(more);
        }
        let mut desk = lock(&self.shared.desk);
        let mut outcome = Ok(());
        for item in items {
            match item {
                Item::Message(tag, parcel) => desk.push(tag, parcel),
                Item::Broken(error) => {
                    outcome = Err(failed(format!("receive from queue {}", self.shared.queue), error));
                    break;
                }
                Item::Ended(number) if self.consumers.iter().any(|(n, _, _)| *n == number) => {
                    let text =
                        format!("rabbitmq cancelled the consumer of queue {}: was it deleted?", self.shared.queue);
                    outcome = Err(Error::new(ErrorKind::NotFound, text));
                    break;
                }
                Item::Ended(_) => {}
            }
        }
        let (sated, has_some) = (desk.sated(), desk.has_some());
        drop(desk);
        // a full window opens with a settlement, which wakes whoever waits
        if has_some {
            self.shared.arrived.notify_waiters();
        }
        outcome.map(|()| sated)
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
    // without a store they stay where they are
    if errors && !shared.home.is_storeless(queue) {
        lanes.push((Lane::Dead, names.error(queue)));
    }
    Ok(lanes)
}
