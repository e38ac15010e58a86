//! What a receiver has at hand, has handed out, and has to tell the broker. No waiting, no decoding.

use super::{
    acks::Acks,
    received::{ConsumerKind, Received},
};
use foldhash::{HashMap, HashSet};
use futures::FutureExt;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use sagabus_core::{Delivery, Settle, Settlement, Token};
use std::collections::VecDeque;

/// With so much at hand the receiver reads no more, until it has come down to few. The broker sends a handful at a time;
/// read as they come, each handful would wake a task while more lies here than anybody takes.
const HIGH_WATERMARK: usize = 1024;
const LOW_WATERMARK: usize = 256;

/// The in-flight window of a receiver. A message that is returned stays here and is handed out again: were it given back
/// to the broker, it would come back behind its successors on an ordered endpoint.
pub(super) struct InFlight {
    window: usize,
    /// How many are sent ahead.
    prefetch: usize,
    /// Nothing more is handed out.
    pub(super) stopped: bool,
    /// And the broker sends nothing more for the lanes without order.
    pub(super) cancelled: bool,
    epoch: u64,
    channel: Option<Channel>,
    last_position: u64,
    acks: Acks,
    /// By tag, which is the order of each queue.
    ready: VecDeque<(u64, Received)>,
    out: HashMap<u64, (u64, Received)>,
    /// Handed out on a channel that is gone, and not settled: they mean nothing any more, but the work is under way.
    stale_tokens: HashSet<Token>,
    /// How many are still to be settled before more may be sent ahead.
    acks_until_raise: Option<u64>,
    /// There is plenty: nothing more is read.
    reading_paused: bool,
}

impl InFlight {
    pub(super) fn new(window: usize, prefetch: usize) -> Self {
        Self {
            window: window.max(1),
            stopped: false,
            cancelled: false,
            epoch: 0,
            channel: None,
            last_position: 0,
            acks: Acks::new(prefetch),
            prefetch,
            ready: VecDeque::new(),
            out: HashMap::default(),
            stale_tokens: HashSet::default(),
            acks_until_raise: None,
            reading_paused: false,
        }
    }

    /// A new channel: everything of the old one is void.
    pub(super) fn channel_opened(&mut self, channel: Channel) {
        self.channel_lost();
        self.channel = Some(channel);
    }

    /// The channel is gone: the broker delivers again what was not acknowledged.
    pub(super) fn channel_lost(&mut self) {
        let epoch = self.epoch;
        self.stale_tokens.extend(self.out.drain().map(|(position, _)| Token { epoch, position }));
        self.epoch += 1;
        self.channel = None;
        self.cancelled = false;
        self.reading_paused = false;
        self.acks = Acks::new(self.prefetch);
        self.ready.clear();
    }

    /// Takes in what the broker delivered.
    pub(super) fn push(&mut self, tag: u64, received: Received) {
        self.acks.add(tag);
        if self.cancelled && received.kind != ConsumerKind::Ordered {
            return self.return_to_broker(tag);
        }
        self.insert_ready(tag, received);
    }

    /// To the others at hand, by its tag: nearly always the highest.
    fn insert_ready(&mut self, tag: u64, received: Received) {
        if self.ready.back().is_none_or(|(last, _)| *last < tag) {
            return self.ready.push_back((tag, received));
        }
        let at = self.ready.partition_point(|(other, _)| *other < tag);
        self.ready.insert(at, (tag, received));
    }

    /// Whether [`take`](Self::take) may find something now.
    pub(super) fn has_deliverable(&self) -> bool {
        !self.ready.is_empty() && self.out.len() + self.stale_tokens.len() < self.window
    }

    /// Whether so much is at hand that the rest may stay where it is, if nothing has an order. Then [`take_below_low_watermark`](Self::take_below_low_watermark)
    /// says when it may not.
    pub(super) fn pause_reading(&mut self) -> bool {
        self.reading_paused = self.ready.len() >= HIGH_WATERMARK;
        self.reading_paused
    }

    /// Once: there was plenty, and now there are few.
    pub(super) fn take_below_low_watermark(&mut self) -> bool {
        let below = self.reading_paused && self.ready.len() < LOW_WATERMARK;
        self.reading_paused &= !below;
        below
    }

    /// Up to `max` within the window.
    pub(super) fn take(&mut self, max: usize) -> Vec<Delivery> {
        let count = max.min(self.window.saturating_sub(self.out.len() + self.stale_tokens.len()));
        let mut taken = Vec::with_capacity(count.min(self.ready.len()));
        while taken.len() < count
            && let Some((tag, received)) = self.ready.pop_front()
        {
            taken.push(self.hand_out(tag, received));
        }
        taken
    }

    fn hand_out(&mut self, tag: u64, received: Received) -> Delivery {
        self.last_position += 1;
        let delivery = received.delivery(Token { epoch: self.epoch, position: self.last_position });
        self.out.insert(self.last_position, (tag, received));
        delivery
    }

    /// Settles; what is not known is ignored. Answers whether the broker was left waiting for single acks.
    pub(super) fn settle(&mut self, settlements: &[Settlement]) -> bool {
        for Settlement { token, settle } in settlements {
            if token.epoch != self.epoch {
                self.stale_tokens.remove(token);
                continue;
            }
            let Some((tag, received)) = self.out.remove(&token.position) else { continue };
            let ordered = received.kind == ConsumerKind::Ordered;
            match settle {
                Settle::Done | Settle::Committed => {
                    self.acks.done(tag);
                    self.acks_until_raise = self.acks_until_raise.map(|count| count.saturating_sub(1));
                }
                _ if self.cancelled && !ordered => self.return_to_broker(tag),
                Settle::Return => self.insert_ready(tag, received),
            }
        }
        self.flush(false);
        self.acks.has_gap_acks()
    }

    /// Acknowledges what can be; with `tick` also what has waited behind a gap. Answers whether some still waits.
    ///
    /// The frames are pushed when the calls are polled first, here under the desk's lock, so they go out in this order;
    /// when they get to the socket is of no interest, and an error is the end of the channel anyway.
    pub(super) fn flush(&mut self, tick: bool) -> bool {
        let prefix = self.acks.prefix();
        let single = self.acks.due_gap_acks(tick);
        if let Some(channel) = &self.channel {
            if let Some(tag) = prefix {
                let _ = channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never();
            }
            for tag in single {
                let _ = channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never();
            }
        }
        self.acks.has_gap_acks()
    }

    /// Not started: for anyone. (Not a reject: from RabbitMQ 4.3 on that would count as a failed delivery.)
    fn return_to_broker(&mut self, tag: u64) {
        self.acks.forget(tag);
        if let Some(channel) = &self.channel {
            let options = BasicNackOptions { multiple: false, requeue: true };
            let _ = channel.basic_nack(tag, options).now_or_never();
        }
    }

    /// The broker sends nothing more for the lanes without order: what was not handed out goes back. What is ordered stays
    /// until the channel is closed, since the next consumer must not overtake what is still in flight here.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        for (tag, received) in std::mem::take(&mut self.ready) {
            if received.kind == ConsumerKind::Ordered {
                self.ready.push_back((tag, received));
            } else {
                self.return_to_broker(tag);
            }
        }
    }

    /// After so many more are settled, [`take_raise_due`](Self::take_raise_due) says so.
    pub(super) fn raise_prefetch_after(&mut self, count: u64) {
        self.acks_until_raise = Some(count);
    }

    /// Once: as many are settled as was asked for.
    pub(super) fn take_raise_due(&mut self) -> bool {
        self.acks_until_raise.take_if(|count| *count == 0).is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.channel.is_some()
    }
}
