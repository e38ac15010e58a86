//! One assigned partition: what was read of it, what is out, what is finished.

use super::{
    marks::Mark,
    progress::{Note, Progress},
};
use sagabus_core::{Delivery, Position};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Topic and partition.
pub(super) type Place = (Arc<str>, i32);

/// The most offsets between the first unfinished one and the last one that is handed out. What lies between has to be
/// remembered, here and in the text beside the committed offset.
const SPAN: i64 = 10_000;

/// Most bytes of it that wait here.
const MOST_BYTES: usize = 32 << 20;

/// How far ahead of what is handed out the limit is written down, at least and at most.
const STEP: (i64, i64) = (64, 2048);

/// A record, read.
pub(super) struct Parcel {
    /// With an empty token.
    pub(super) delivery: Delivery,
    pub(super) size: usize,
    /// It has the same time whenever it is read.
    pub(super) dated: bool,
}

impl Parcel {
    pub(super) fn key(&self) -> Option<&str> {
        self.delivery.message.headers.order_key.as_deref()
    }
}

/// Where to begin, and what an earlier owner left.
pub(super) struct Start {
    pub(super) place: Place,
    pub(super) note: Note,
    /// Records before this offset may have been in flight when an earlier owner died.
    pub(super) suspect_until: i64,
    /// The ranges that are wanted; `None` for all of it.
    pub(super) wanted: Option<Vec<(i64, i64)>>,
    /// Whether progress is written down.
    pub(super) durable: bool,
    /// What the store knows of it, if it is to know.
    pub(super) position: Option<Position>,
}

pub(super) struct Lane {
    pub(super) start: Start,
    progress: Progress,
    /// Read, and not handed out.
    ready: BTreeMap<i64, Arc<Parcel>>,
    pub(super) bytes: usize,
    /// Ordered: keys with a requeued message, until when.
    blocked: HashMap<Box<str>, Duration>,
    /// How many are handed out.
    pub(super) out: usize,
    /// It is to be given up: nothing more is handed out.
    pub(super) draining: bool,
    /// Nothing from here on is handed out until a higher limit is written down. Whoever takes over after a crash knows by
    /// it what may have been in flight.
    limit: i64,
    /// One past the last offset that was handed out.
    handed: i64,
    /// How far `handed` was when the limit was raised last.
    before: i64,
    /// The limit stands in the way.
    starved: bool,
    changed: bool,
    /// Something that was read, by which the topic can be known again.
    mark: Option<Mark>,
    /// There was no room for more; there is when half of it has gone.
    pub(super) full: bool,
}

impl Lane {
    pub(super) fn new(start: Start) -> Self {
        let base = start.note.base;
        Self {
            progress: Progress::new(&start.note),
            ready: BTreeMap::new(),
            bytes: 0,
            blocked: HashMap::new(),
            out: 0,
            draining: false,
            limit: if start.durable { base } else { i64::MAX },
            // what an earlier owner had out stays suspect until it is finished
            handed: start.suspect_until.max(base),
            before: start.suspect_until.max(base),
            starved: start.durable,
            changed: false,
            mark: None,
            full: false,
            start,
        }
    }

    /// Takes a record in, unless it is finished or not wanted.
    pub(super) fn push(&mut self, offset: i64, parcel: Parcel) {
        if self.mark.is_none() && self.start.position.is_some() && parcel.dated {
            self.mark = Some(Mark::of(offset, &parcel.delivery.message.headers));
        }
        if !self.progress.read(offset) {
            return;
        }
        self.changed = true;
        let wanted = |ranges: &Vec<(i64, i64)>| ranges.iter().any(|(from, until)| (*from..*until).contains(&offset));
        if !self.start.wanted.as_ref().is_none_or(wanted) {
            return self.progress.finish(offset);
        }
        if !self.draining {
            self.put_back(offset, Arc::new(parcel));
        }
    }

    /// It waits to be handed out, again.
    pub(super) fn put_back(&mut self, offset: i64, parcel: Arc<Parcel>) {
        if !self.draining {
            self.bytes += parcel.size;
            self.ready.insert(offset, parcel);
        }
    }

    /// Nothing of its key before `until`.
    pub(super) fn block(&mut self, key: &str, until: Duration) {
        let due = self.blocked.entry(key.into()).or_default();
        *due = until.max(*due);
    }

    /// The next one that may be handed out.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(i64, Arc<Parcel>)> {
        if self.draining {
            return None;
        }
        if !self.blocked.is_empty() {
            self.blocked.retain(|_, until| *until > now);
        }
        let free = |parcel: &Parcel| parcel.key().is_none_or(|key| !self.blocked.contains_key(key));
        let offset = *self.ready.iter().find(|(_, parcel)| self.blocked.is_empty() || free(parcel))?.0;
        if offset >= self.limit {
            self.starved = true;
            return None;
        }
        if self.start.durable && offset >= self.progress.base() + SPAN {
            return None;
        }
        let parcel = self.ready.remove(&offset)?;
        self.bytes = self.bytes.saturating_sub(parcel.size);
        self.handed = self.handed.max(offset + 1);
        self.out += 1;
        Some((offset, parcel))
    }

    pub(super) fn finish(&mut self, offset: i64) {
        self.progress.finish(offset);
        self.changed = true;
    }

    /// How many more may be read: none while it is given up.
    pub(super) fn room(&mut self, most: usize) -> usize {
        let waiting = self.ready.len();
        self.full = waiting >= most || self.bytes >= MOST_BYTES || (self.full && !self.is_low(most));
        if self.full || self.draining { 0 } else { most - waiting }
    }

    /// Whether at most half of what may wait does.
    pub(super) fn is_low(&self, most: usize) -> bool {
        self.ready.len() < most / 2 && self.bytes < MOST_BYTES / 2
    }

    /// When a blocked key is free.
    pub(super) fn due(&self) -> Option<Duration> {
        self.blocked.values().min().copied()
    }

    /// Gives up what was not handed out.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.ready.clear();
        self.bytes = 0;
    }

    /// Whether it cannot wait for the next round of commits.
    pub(super) fn urgent(&self) -> bool {
        self.start.durable && self.starved && !self.draining
    }

    /// What is to be written down, if anything changed, or (`keep`) if the store does not know of it yet. `last` says that
    /// nothing will be handed out any more.
    pub(super) fn note(&mut self, last: bool, keep: bool) -> Option<Note> {
        let behind = self.start.position.as_ref().is_some_and(|position| position.handled_below < self.progress.base());
        if !self.start.durable || !(self.changed || self.starved || last || (keep && behind)) {
            return None;
        }
        let starved = std::mem::take(&mut self.starved);
        self.changed = false;
        let base = self.progress.base();
        if last || self.draining {
            // nothing is in flight but what an earlier owner may have had
            let suspect = if base < self.start.suspect_until { self.start.suspect_until } else { base };
            return Some(self.progress.note(if self.out == 0 { suspect } else { self.handed }));
        }
        if starved || self.handed > self.before {
            let step = ((self.handed - self.before) * 2).clamp(STEP.0, STEP.1);
            self.before = self.handed;
            return Some(self.progress.note(self.limit.max(self.handed.max(base) + step)));
        }
        Some(self.progress.note(self.limit))
    }

    /// A note was written down.
    pub(super) fn written(&mut self, note: &Note) {
        self.limit = self.limit.max(note.limit);
    }

    /// What the store is to know, now that the group has this base.
    pub(super) fn raise(&mut self, base: i64) -> Option<Position> {
        let base = base.min(self.progress.base());
        let position = self.start.position.as_mut().filter(|position| position.handled_below < base)?;
        if let Some(mark) = self.mark.take_if(|mark| mark.offset < base) {
            position.fingerprint = mark.text();
        }
        Some(Position { handled_below: base, ..position.clone() })
    }

    /// It knows; or somebody else has the partition, or an operator has reset it, and it does not want to know.
    pub(super) fn raised(&mut self, base: i64, done: bool) {
        match &mut self.start.position {
            Some(position) if done => position.handled_below = position.handled_below.max(base),
            position => *position = None,
        }
    }

    /// It was not.
    pub(super) fn failed(&mut self) {
        self.changed = true;
        self.starved = true;
    }
}
