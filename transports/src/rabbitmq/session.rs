//! The supervisor of a receiver: connect, consume, and all over again when anything breaks.
//!
//! A lost connection, a channel that the broker closed, a consumer that it cancelled and a restart of the broker are all
//! the same here: the session ends with an error, its deliveries become void, and the next one begins after a pause.

use super::{
    connection::LiveConnection,
    error::failed,
    names::short,
    received::{ConsumerKind, Received},
    shared::{Phase, ReceiverState},
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
const MIN_GOOD_SESSION: Duration = Duration::from_secs(10);

/// After that the partitions of an ordered endpoint send one message at a time for so long.
const CAREFUL_SESSION: Duration = Duration::from_secs(5);

/// After so long more are sent ahead, if not so many were settled before.
const PREFETCH_RAISE_DELAY: Duration = Duration::from_millis(200);

/// So many times as many.
const PREFETCH_RAISE_FACTOR: u16 = 8;

/// How a session begins. A message that ends the connection or the process counts a delivery of all that were sent ahead
/// with it; and so does whatever else ends processes again and again. So a session begins with one message, and goes on
/// to a few times as many as it has settled: then a message wears out few more deliveries than were handled before it. (Or
/// after a moment, for handlers that take their time.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionStart {
    /// The first one of this process: it may have been ended by a message.
    FirstSession,
    /// After one that ended badly.
    AfterFailure,
    /// After one that lasted.
    FullPrefetch,
}

/// How a session ended, if not by an error.
enum SessionEnd {
    Closed,
    /// It was careful for long enough.
    RestartAtFullPrefetch,
}

/// For how long a receiver that could not be started is tried again.
const START_TIMEOUT: Duration = Duration::from_secs(20);

const MAX_RESTART_DELAY: Duration = Duration::from_secs(5);

/// How long an ack may wait behind a gap; twice that at most.
const GAP_ACK_INTERVAL: Duration = Duration::from_millis(100);

/// About so many deliveries are taken in under one lock: less than twice as many.
const MAX_ITEMS_PER_LOCK: usize = 256;

/// With plenty at hand: how long nothing is read at most. Then a chunk is, and with it the end of the first consumer of a queue
/// that was deleted, which has one message ahead of it.
const READING_PAUSE: Duration = Duration::from_millis(100);

/// Runs sessions until the receiver is closed. It is told when the first one works, or that none does.
pub(super) async fn run(state: Arc<ReceiverState>, first: oneshot::Sender<Result<()>>) {
    let mut first = Some(first);
    let runtime = state.manager.options.runtime.clone();
    let (mut how, mut failures) = (SessionStart::FirstSession, 0u32);
    let begun = runtime.elapsed();
    loop {
        let start = runtime.elapsed();
        let ended = Session::run(&state, how, &mut first).await;
        lock(&state.in_flight).channel_lost();
        state.arrived.notify_waiters();
        state.quiet.notify_waiters();
        let error = match ended {
            Ok(SessionEnd::Closed) => return,
            Ok(SessionEnd::RestartAtFullPrefetch) => {
                how = SessionStart::FullPrefetch;
                continue;
            }
            Err(error) => error,
        };
        if error.is_closed() {
            return state.end();
        }
        // one poisonous message must not keep an endpoint from starting: it wears out its own deliveries first
        if (!error.is_transient() || runtime.elapsed() - begun > START_TIMEOUT)
            && let Some(first) = first.take()
        {
            // whoever asked gets the error, and no receiver
            let _ = first.send(Err(error));
            return;
        }
        let lived = runtime.elapsed() - start;
        how = if lived < MIN_GOOD_SESSION { SessionStart::AfterFailure } else { SessionStart::FullPrefetch };
        failures = if how == SessionStart::AfterFailure { failures + 1 } else { 0 };
        tracing::warn!(queue = state.queue, %error, "receiving from rabbitmq was interrupted");
        if error.is_not_found() {
            state.manager.redeclare(&state.queue).await;
        }
        state.report(error);
        let pause = (GAP_ACK_INTERVAL * 2u32.saturating_pow(failures.min(10))).min(MAX_RESTART_DELAY);
        let mut phase = state.phase.subscribe();
        tokio::select! {
            () = runtime.sleep(GAP_ACK_INTERVAL + runtime.jitter(pause)) => {}
            // the result is no error while `shared` lives
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
        }
    }
}

enum Item {
    /// With its tag.
    Message(u64, Received),
    Broken(lapin::Error),
    /// The consumer with this number gets nothing more.
    Ended(usize),
}

struct Session<'a> {
    state: &'a Arc<ReceiverState>,
    channel: Channel,
    /// What has come meanwhile, together: one by one each would cost the way through the selection.
    streams: SelectAll<BoxStream<'static, Vec<Item>>>,
    /// (number, lane, tag) of the consumers at work.
    consumers: Vec<(usize, ConsumerKind, ShortString)>,
    numbers: usize,
}

impl Session<'_> {
    async fn run(
        state: &Arc<ReceiverState>,
        how: SessionStart,
        first: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> Result<SessionEnd> {
        let live = state.manager.consume.get(true).await?;
        let sources = sources(state, &live).await?;
        let channel = topology::open(&live).await?;
        let mut session = Session { state, channel, streams: SelectAll::new(), consumers: Vec::new(), numbers: 0 };
        lock(&state.in_flight).channel_opened(session.channel.clone());
        let full = state.prefetch;
        let ahead = |kind| match (kind, how) {
            (ConsumerKind::DeadLetters, _)
            | (ConsumerKind::Unordered, SessionStart::FirstSession | SessionStart::AfterFailure)
            | (ConsumerKind::Ordered, SessionStart::AfterFailure) => 1,
            (ConsumerKind::Unordered, SessionStart::FullPrefetch)
            | (ConsumerKind::Ordered, SessionStart::FirstSession | SessionStart::FullPrefetch) => full,
        };
        session.consume(&sources, ahead).await?;
        state.clear();
        if let Some(first) = first.take() {
            // if nobody waits any more, the receiver is dropped and this task with it
            let _ = first.send(Ok(()));
        }
        session.work(&sources, how).await
    }

    /// Consumers, each with its prefetch.
    async fn consume(
        &mut self,
        sources: &[(ConsumerKind, String)],
        prefetch: impl Fn(ConsumerKind) -> u16,
    ) -> Result<()> {
        let doing = || format!("consume queue {}", self.state.queue);
        for (kind, queue) in sources {
            // it holds for the consumers that begin after it
            let prefetch = self.channel.basic_qos(prefetch(*kind), BasicQosOptions::default()).await;
            prefetch.map_err(|e| failed(doing(), e))?;
            self.numbers += 1;
            let (kind, number) = (*kind, self.numbers);
            let tag = short(format!("sagabus-{number}"))?;
            let consumer = self
                .channel
                .basic_consume(short(queue)?, tag.clone(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(|e| failed(format!("consume queue {queue}"), e))?;
            let state = Arc::clone(self.state);
            let items = consumer.map(move |delivery| match delivery {
                Ok(delivery) => Item::Message(delivery.delivery_tag, state.decoder.decode(kind, delivery)),
                Err(error) => Item::Broken(error),
            });
            let items = items.chain(futures::stream::once(async move { Item::Ended(number) }));
            self.streams.push(items.ready_chunks(MAX_ITEMS_PER_LOCK).boxed());
            self.consumers.push((number, kind, tag));
        }
        Ok(())
    }

    async fn cancel(&mut self, which: impl Fn(usize, ConsumerKind) -> bool) -> Result<()> {
        let (cancelled, stay) = self.consumers.drain(..).partition(|(number, kind, _)| which(*number, *kind));
        self.consumers = stay;
        let cancelled: Vec<(usize, ConsumerKind, ShortString)> = cancelled;
        for (_, _, tag) in cancelled {
            let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default()).await;
            cancelled.map_err(|e| failed(format!("stop consuming queue {}", self.state.queue), e))?;
        }
        Ok(())
    }

    async fn work(&mut self, sources: &[(ConsumerKind, String)], how: SessionStart) -> Result<SessionEnd> {
        let state = self.state;
        let runtime = &state.manager.options.runtime;
        let mut phase = state.phase.subscribe();
        let mut gap_ack_timer = Box::pin(runtime.sleep(GAP_ACK_INTERVAL));
        let full = state.prefetch;
        let mut level = if how == SessionStart::FullPrefetch { full } else { 1 };
        lock(&state.in_flight).raise_prefetch_after(u64::from(level));
        let mut raise_timer = Box::pin(runtime.sleep(PREFETCH_RAISE_DELAY));
        // never by another consumer: while one is exchanged for the other, the next process would take the partition over
        let ordered = sources.iter().any(|(kind, _)| *kind == ConsumerKind::Ordered);
        let restart_later = ordered && how == SessionStart::AfterFailure;
        let mut careful_timer = Box::pin(runtime.sleep(CAREFUL_SESSION));
        let mut pause_timer = Box::pin(runtime.sleep(READING_PAUSE));
        let (mut gap_acks_pending, mut stopped, mut paused) = (false, false, false);
        loop {
            let now = *phase.borrow_and_update();
            if now != Phase::Running && !stopped {
                stopped = true;
                self.cancel(|_, kind| kind != ConsumerKind::Ordered).await?;
                self.drain()?;
                lock(&state.in_flight).cancel();
                state.quiet.notify_waiters();
            }
            if now == Phase::Closing {
                return self.close().await.map(|()| SessionEnd::Closed);
            }
            let mut raise = false;
            tokio::select! {
                // when all have ended there is always the next nothing, at once: this would never wait again, nor let others run
                items = self.streams.next(), if !paused && !self.streams.is_empty() => {
                    // the partitions' consumers each have their own queue, whose end would lie behind thousands of messages; and
                    // what one of them has unread would be the gap before which the acks of all others wait
                    paused = self.accept(items.unwrap_or_default())? && !ordered;
                    if paused {
                        pause_timer = Box::pin(runtime.sleep(READING_PAUSE));
                    }
                }
                () = state.below_low_watermark.notified(), if paused => paused = false,
                () = &mut pause_timer, if paused => paused = false,
                // an error would mean that the receiver is gone, and this task with it
                _ = phase.changed() => {}
                () = state.has_gap_acks.notified(), if !gap_acks_pending => {
                    gap_acks_pending = true;
                    gap_ack_timer = Box::pin(runtime.sleep(GAP_ACK_INTERVAL));
                }
                () = &mut gap_ack_timer, if gap_acks_pending => {
                    gap_acks_pending = lock(&state.in_flight).flush(true);
                    gap_ack_timer = Box::pin(runtime.sleep(GAP_ACK_INTERVAL));
                }
                () = state.raise_due.notified(), if level < full && !stopped => raise = true,
                () = &mut raise_timer, if level < full && !stopped => raise = true,
                () = &mut careful_timer, if restart_later && !stopped => {
                    self.close().await?;
                    return Ok(SessionEnd::RestartAtFullPrefetch);
                }
            }
            if raise {
                let raised = level.saturating_mul(PREFETCH_RAISE_FACTOR).min(full);
                self.raise_prefetch(sources, raised - level).await?;
                level = raised;
                lock(&state.in_flight).raise_prefetch_after(u64::from(level));
                raise_timer = Box::pin(runtime.sleep(PREFETCH_RAISE_DELAY));
            }
        }
    }

    /// One more consumer of what has no order, for so many more messages. (Not another one in the place of the last: what
    /// is on its way to a consumer that is cancelled comes back as if it had been in the hands of one that died.)
    async fn raise_prefetch(&mut self, sources: &[(ConsumerKind, String)], more: u16) -> Result<()> {
        let unordered: Vec<(ConsumerKind, String)> =
            sources.iter().filter(|(kind, _)| *kind == ConsumerKind::Unordered).cloned().collect();
        self.consume(&unordered, |_| more).await
    }

    /// What is there already, before the in_flight is told that there is no more.
    fn drain(&mut self) -> Result<()> {
        while let Some(Some(items)) = self.streams.next().now_or_never() {
            self.accept(items)?;
        }
        Ok(())
    }

    /// Some items, and whatever else has come, under one lock. Answers whether that is plenty.
    fn accept(&mut self, mut items: Vec<Item>) -> Result<bool> {
        while items.len() < MAX_ITEMS_PER_LOCK
            && let Some(Some(more)) = self.streams.next().now_or_never()
        {
            items.extend(more);
        }
        let mut in_flight = lock(&self.state.in_flight);
        let mut outcome = Ok(());
        for item in items {
            match item {
                Item::Message(tag, received) => in_flight.push(tag, received),
                Item::Broken(error) => {
                    outcome = Err(failed(format!("receive from queue {}", self.state.queue), error));
                    break;
                }
                Item::Ended(number) if self.consumers.iter().any(|(n, _, _)| *n == number) => {
                    let text =
                        format!("rabbitmq cancelled the consumer of queue {}: was it deleted?", self.state.queue);
                    outcome = Err(Error::new(ErrorKind::NotFound, text));
                    break;
                }
                Item::Ended(_) => {}
            }
        }
        let (reading_paused, has_deliverable) = (in_flight.pause_reading(), in_flight.has_deliverable());
        drop(in_flight);
        // a full window opens with a settlement, which wakes whoever waits
        if has_deliverable {
            self.state.arrived.notify_waiters();
        }
        outcome.map(|()| reading_paused)
    }

    /// Acks that were pushed before are handled by the broker before the channel is; what is left goes back in its order,
    /// and with the same step the next consumer of each partition begins.
    async fn close(&mut self) -> Result<()> {
        lock(&self.state.in_flight).flush(true);
        lock(&self.state.in_flight).flush(true);
        let bye = self.channel.close(200, "the receiver is closed".into());
        match self.state.manager.options.runtime.timeout(Duration::from_secs(5), bye).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "the channel was closed already"),
            None => tracing::warn!(queue = self.state.queue, "rabbitmq does not answer: the channel was not closed"),
        }
        Ok(())
    }
}

/// The queues that this receiver consumes: its own, the partitions, and the broker's dead letters.
async fn sources(state: &ReceiverState, live: &LiveConnection) -> Result<Vec<(ConsumerKind, String)>> {
    let (names, queue) = (&state.manager.names, &state.queue);
    let mut sources = vec![(ConsumerKind::Unordered, names.queue(queue))];
    if state.manager.redeclare_temporary(live, queue).await? {
        return Ok(sources);
    }
    let (partitions, errors) = topology::probe(live, names, queue).await?;
    sources.extend((0..partitions).map(|number| (ConsumerKind::Ordered, names.partition(queue, number))));
    // without a store they stay where they are
    if errors && !state.manager.is_storeless(queue) {
        sources.push((ConsumerKind::DeadLetters, names.error(queue)));
    }
    Ok(sources)
}
