//! One queue: shards, consumers, who gets what.

use sagabus_core::{Envelope, NodeId, SHARDS, Settle, Token, shard_of};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// The index of the shard for messages without a key, which know no order. Those before it are the order keys' shards.
const UNORDERED_SHARD: usize = SHARDS as usize;

pub(super) struct Queue {
    pub(super) notify: Arc<Notify>,
    /// A reply queue of this handle: it goes with it.
    pub(super) temporary: Option<u64>,
    shards: Vec<Shard>,
    /// Not available before that moment.
    delayed: BTreeMap<(Duration, u64), (usize, Entry)>,
    out: HashMap<u64, Out>,
    consumers: HashMap<u64, Consumer>,
}

#[derive(Default)]
struct Shard {
    ready: BTreeMap<u64, Entry>,
    /// The consumer that has messages of this shard in flight, and how many. Others wait until it has settled them.
    holder: (u64, usize),
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) message: Envelope,
    pub(super) defect: Option<String>,
    pub(super) suspect: bool,
}

struct Out {
    consumer: u64,
    epoch: u64,
    shard: usize,
    sequence: u64,
    entry: Entry,
}

struct Consumer {
    node: NodeId,
    epoch: u64,
    window: usize,
    ordered: bool,
    out: usize,
    stopped: bool,
}

/// What a consumer gets.
pub(super) enum Pick {
    Taken {
        entry: Box<Entry>,
        token: Token,
        sequence: u64,
        shard: usize,
    },
    /// Nothing before that moment, as far as is known.
    Nothing(Option<Duration>),
    Stopped,
}

impl Queue {
    pub(super) fn new(temporary: Option<u64>) -> Self {
        Self {
            notify: Arc::new(Notify::new()),
            temporary,
            shards: (0..=UNORDERED_SHARD).map(|_| Shard::default()).collect(),
            delayed: BTreeMap::new(),
            out: HashMap::new(),
            consumers: HashMap::new(),
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.shards.iter().map(|shard| shard.ready.len()).sum::<usize>() + self.delayed.len() + self.out.len()
    }

    pub(super) fn push(&mut self, sequence: u64, entry: Entry, until: Option<Duration>) {
        let shard = entry
            .message
            .headers
            .order_key
            .as_ref()
            .map_or(UNORDERED_SHARD, |key| usize::from(shard_of(key.as_bytes())));
        self.put(shard, sequence, entry, until);
    }

    fn put(&mut self, shard: usize, sequence: u64, entry: Entry, until: Option<Duration>) {
        if let Some(until) = until {
            self.delayed.insert((until, sequence), (shard, entry));
        } else if let Some(shard) = self.shards.get_mut(shard) {
            shard.ready.insert(sequence, entry);
        }
        self.notify.notify_waiters();
    }

    pub(super) fn join(&mut self, id: u64, node: NodeId, window: usize, ordered: bool) {
        let consumer = Consumer { node, epoch: 0, window: window.max(1), ordered, out: 0, stopped: false };
        self.consumers.insert(id, consumer);
    }

    pub(super) fn stop(&mut self, id: u64) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.stopped = true;
        }
        self.notify.notify_waiters();
    }

    /// The consumer is gone; what it had in flight is available again.
    pub(super) fn leave(&mut self, id: u64, suspect: bool) {
        self.consumers.remove(&id);
        self.give_back(id, suspect);
    }

    /// The connections of a node break: what it had in flight is available again, and its tokens are void.
    pub(super) fn cut(&mut self, node: NodeId) -> usize {
        let ids: Vec<u64> = self.consumers.iter().filter(|(_, c)| c.node == node).map(|(id, _)| *id).collect();
        for id in &ids {
            if let Some(consumer) = self.consumers.get_mut(id) {
                consumer.epoch += 1;
                consumer.out = 0;
            }
            self.give_back(*id, true);
        }
        ids.len()
    }

    fn give_back(&mut self, id: u64, suspect: bool) {
        let mut tags: Vec<u64> = self.out.iter().filter(|(_, out)| out.consumer == id).map(|(tag, _)| *tag).collect();
        tags.sort_unstable();
        for tag in tags {
            if let Some(Out { shard, sequence, mut entry, .. }) = self.out.remove(&tag) {
                self.unhold(shard);
                entry.suspect |= suspect;
                self.put(shard, sequence, entry, None);
            }
        }
        self.notify.notify_waiters();
    }

    fn unhold(&mut self, shard: usize) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.holder.1 = shard.holder.1.saturating_sub(1);
        }
    }

    /// The next message for a consumer, under the tag.
    pub(super) fn pick(&mut self, id: u64, tag: u64, now: Duration) -> Pick {
        self.resume(now);
        let Some(consumer) = self.consumers.get_mut(&id).filter(|c| !c.stopped) else {
            return Pick::Stopped;
        };
        if consumer.out >= consumer.window {
            return Pick::Nothing(None);
        }
        let until = self.delayed.first_key_value().map(|((until, _), _)| *until);
        let mut best: Option<(u64, usize)> = None;
        for (index, shard) in self.shards.iter().enumerate() {
            let Some(sequence) = shard.ready.keys().next() else { continue };
            let kept = consumer.ordered && index != UNORDERED_SHARD;
            if kept && shard.holder.1 > 0 && shard.holder.0 != id {
                continue;
            }
            if best.is_none_or(|(p, _)| *sequence < p) {
                best = Some((*sequence, index));
            }
        }
        let Some((sequence, index)) = best else { return Pick::Nothing(until) };
        let Some(shard) = self.shards.get_mut(index) else { return Pick::Nothing(until) };
        let Some(entry) = shard.ready.remove(&sequence) else { return Pick::Nothing(until) };
        shard.holder = if shard.holder.0 == id { (id, shard.holder.1 + 1) } else { (id, 1) };
        consumer.out += 1;
        let token = Token { epoch: consumer.epoch, position: tag };
        let out = Out { consumer: id, epoch: consumer.epoch, shard: index, sequence, entry: entry.clone() };
        self.out.insert(tag, out);
        Pick::Taken { entry: Box::new(entry), token, sequence, shard: index }
    }

    fn resume(&mut self, now: Duration) {
        while let Some(delayed) = self.delayed.first_entry()
            && delayed.key().0 <= now
        {
            let ((_, sequence), (shard, entry)) = delayed.remove_entry();
            if let Some(shard) = self.shards.get_mut(shard) {
                shard.ready.insert(sequence, entry);
            }
        }
    }

    /// A second copy of what was just handed out, next in its shard.
    pub(super) fn repeat(&mut self, sequence: u64, shard: usize, entry: Entry) {
        self.put(shard, sequence, entry, None);
    }

    /// Settles; an unknown token is ignored.
    pub(super) fn settle(&mut self, id: u64, token: Token, settle: Settle) {
        let known = |out: &Out| out.consumer == id && out.epoch == token.epoch;
        if !self.out.get(&token.position).is_some_and(known) {
            return;
        }
        let Some(Out { shard, sequence, entry, .. }) = self.out.remove(&token.position) else { return };
        self.unhold(shard);
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.out = consumer.out.saturating_sub(1);
        }
        match settle {
            Settle::Done | Settle::Committed => {}
            Settle::Return => self.put(shard, sequence, entry, None),
        }
        self.notify.notify_waiters();
    }
}
