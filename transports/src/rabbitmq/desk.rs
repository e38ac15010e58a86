//! What a receiver has at hand, has handed out, and has to tell the broker. No waiting, no decoding.

use super::{
    acks::Acks,
    parcel::{Lane, Parcel},
};
use foldhash::{HashMap, HashSet};
use futures::FutureExt;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use sagabus_core::{Delivery, Settle, Settlement, Token};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// With so much at hand the receiver reads no more, until it has come down to few. The broker sends a handful at a time;
/// read as they come, each handful would wake a task while more lies here than anybody takes.
const PLENTY: usize = 1024;
const FEW: usize = 256;

/// A message that is requeued stays here and is handed out again after a pause. Were it given back to the broker, it
/// would count towards the delivery limit, and a store that is down for a minute would empty the queue into the dead
/// letters; and on an ordered endpoint it would come back behind its successors.
pub(super) struct Desk {
    window: usize,
    /// How many are sent ahead.
    prefetch: usize,
    /// Nothing more is handed out.
    pub(super) stopped: bool,
    /// And the broker sends nothing more for the lanes without order.
    pub(super) cancelled: bool,
    epoch: u64,
    channel: Option<Channel>,
    positions: u64,
    acks: Acks,
    /// By tag, which is the order of each queue.
    ready: VecDeque<(u64, Parcel)>,
    held: BTreeMap<(Duration, u64), Parcel>,
    /// Shards of an ordered endpoint with a requeued message, until when.
    blocked: HashMap<u16, Duration>,
    out: HashMap<u64, (u64, Parcel)>,
    /// Handed out on a channel that is gone, and not settled: they mean nothing any more, but the work is under way.
    void: HashSet<Token>,
    /// How many are still to be settled before more may be sent ahead.
    until_faster: Option<u64>,
    /// There is plenty: nothing more is read.
    sated: bool,
}

impl Desk {
    pub(super) fn new(window: usize, prefetch: usize) -> Self {
        Self {
            window: window.max(1),
            stopped: false,
            cancelled: false,
            epoch: 0,
            channel: None,
            positions: 0,
            acks: Acks::new(prefetch),
            prefetch,
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            blocked: HashMap::default(),
            out: HashMap::default(),
            void: HashSet::default(),
            until_faster: None,
            sated: false,
        }
    }

    /// A new channel: everything of the old one is void.
    pub(super) fn begin(&mut self, channel: Channel) {
        self.lost();
        self.channel = Some(channel);
    }

    /// The channel is gone: the broker delivers again what was not acknowledged.
    pub(super) fn lost(&mut self) {
        let epoch = self.epoch;
        self.void.extend(self.out.drain().map(|(position, _)| Token { epoch, position }));
        self.epoch += 1;
        self.channel = None;
        self.cancelled = false;
        self.sated = false;
        self.acks = Acks::new(self.prefetch);
        self.ready.clear();
        self.held.clear();
        self.blocked.clear();
    }

    /// Takes in what the broker delivered.
    pub(super) fn push(&mut self, tag: u64, parcel: Parcel) {
        self.acks.add(tag);
        if self.cancelled && parcel.lane != Lane::Ordered {
            return self.give_back(tag);
        }
        self.put(tag, parcel);
    }

    /// To the others at hand, by its tag: nearly always the highest.
    fn put(&mut self, tag: u64, parcel: Parcel) {
        if self.ready.back().is_none_or(|(last, _)| *last < tag) {
            return self.ready.push_back((tag, parcel));
        }
        let at = self.ready.partition_point(|(other, _)| *other < tag);
        self.ready.insert(at, (tag, parcel));
    }

    /// Whether [`take`](Self::take) may find something now; what is held back or blocked has its own time.
    pub(super) fn has_some(&self) -> bool {
        !self.ready.is_empty() && self.out.len() + self.void.len() < self.window
    }

    /// Whether so much is at hand that the rest may stay where it is, if nothing has an order. Then [`hungry`](Self::hungry)
    /// says when it may not.
    pub(super) fn sated(&mut self) -> bool {
        self.sated = self.ready.len() >= PLENTY;
        self.sated
    }

    /// Once: there was plenty, and now there are few.
    pub(super) fn hungry(&mut self) -> bool {
        let hungry = self.sated && self.ready.len() < FEW;
        self.sated &= !hungry;
        hungry
    }

    /// Up to `max` within the window.
    pub(super) fn take(&mut self, max: usize, now: Duration) -> Vec<Delivery> {
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, tag), parcel) = entry.remove_entry();
            self.put(tag, parcel);
        }
        let count = max.min(self.window.saturating_sub(self.out.len() + self.void.len()));
        let mut taken = Vec::with_capacity(count.min(self.ready.len()));
        if !self.blocked.is_empty() {
            self.blocked.retain(|_, until| *until > now);
        }
        if self.blocked.is_empty() {
            while taken.len() < count
                && let Some((tag, parcel)) = self.ready.pop_front()
            {
                taken.push(self.hand_out(tag, parcel));
            }
            return taken;
        }
        for (tag, parcel) in std::mem::take(&mut self.ready) {
            let blocked = parcel.shard().is_some_and(|shard| self.blocked.contains_key(&shard));
            if blocked || taken.len() == count {
                self.ready.push_back((tag, parcel));
            } else {
                taken.push(self.hand_out(tag, parcel));
            }
        }
        taken
    }

    fn hand_out(&mut self, tag: u64, parcel: Parcel) -> Delivery {
        self.positions += 1;
        let delivery = parcel.delivery(Token { epoch: self.epoch, position: self.positions });
        self.out.insert(self.positions, (tag, parcel));
        delivery
    }

    /// When something that is held back may be handed out.
    pub(super) fn due(&self) -> Option<Duration> {
        let held = self.held.first_key_value().map(|((due, _), _)| *due);
        self.blocked.values().copied().chain(held).min()
    }

    /// Settles; what is not known is ignored. Answers whether the broker was left waiting for single acks.
    pub(super) fn settle(&mut self, settlements: &[Settlement], due: Duration) -> bool {
        for Settlement { token, settle } in settlements {
            if token.epoch != self.epoch {
                self.void.remove(token);
                continue;
            }
            let Some((tag, parcel)) = self.out.remove(&token.position) else { continue };
            let ordered = parcel.lane == Lane::Ordered;
            match settle {
                Settle::Done | Settle::Committed => {
                    self.acks.done(tag);
                    self.until_faster = self.until_faster.map(|count| count.saturating_sub(1));
                }
                _ if self.cancelled && !ordered => self.give_back(tag),
                Settle::Requeue => match parcel.shard() {
                    Some(shard) => {
                        let until = self.blocked.entry(shard).or_default();
                        *until = due.max(*until);
                        self.put(tag, parcel);
                    }
                    None => {
                        self.held.insert((due, tag), parcel);
                    }
                },
                Settle::Return => self.put(tag, parcel),
            }
        }
        self.flush(false);
        self.acks.waiting()
    }

    /// Acknowledges what can be; with `tick` also what has waited behind a gap. Answers whether some still waits.
    ///
    /// The frames are pushed when the calls are polled first, here under the desk's lock, so they go out in this order;
    /// when they get to the socket is of no interest, and an error is the end of the channel anyway.
    pub(super) fn flush(&mut self, tick: bool) -> bool {
        let prefix = self.acks.prefix();
        let single = self.acks.stragglers(tick);
        if let Some(channel) = &self.channel {
            if let Some(tag) = prefix {
                let _ = channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never();
            }
            for tag in single {
                let _ = channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never();
            }
        }
        self.acks.waiting()
    }

    /// Not started: for anyone. (Not a reject: from RabbitMQ 4.3 on that would count as a failed delivery.)
    fn give_back(&mut self, tag: u64) {
        self.acks.gone(tag);
        if let Some(channel) = &self.channel {
            let options = BasicNackOptions { multiple: false, requeue: true };
            let _ = channel.basic_nack(tag, options).now_or_never();
        }
    }

    /// The broker sends nothing more for the lanes without order: what was not handed out goes back. What is ordered stays
    /// until the channel is closed, since the next consumer must not overtake what is still in flight here.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        for ((_, tag), parcel) in std::mem::take(&mut self.held) {
            self.put(tag, parcel);
        }
        for (tag, parcel) in std::mem::take(&mut self.ready) {
            if parcel.lane == Lane::Ordered {
                self.ready.push_back((tag, parcel));
            } else {
                self.give_back(tag);
            }
        }
    }

    /// After so many more are settled, [`faster`](Self::faster) says so.
    pub(super) fn faster_after(&mut self, count: u64) {
        self.until_faster = Some(count);
    }

    /// Once: as many are settled as was asked for.
    pub(super) fn faster(&mut self) -> bool {
        self.until_faster.take_if(|count| *count == 0).is_some()
    }

    pub(super) fn connected(&self) -> bool {
        self.channel.is_some()
    }
}
