//! One assigned partition: the records that wait, the number that is handed out, and how far it is finished.

use super::{
    fingerprint::Fingerprint,
    offset_tracker::{OffsetNote, OffsetTracker},
    topic_partition::TopicPartition,
};
use sagabus_core::{Delivery, Position};
use std::{collections::BTreeMap, sync::Arc};

/// The most offsets between the first unfinished record and the last one that is handed out. The finished ones between
/// them are remembered, here and in the text beside the committed offset.
const MAX_UNFINISHED_SPAN: i64 = 10_000;

/// The most bytes of one partition that wait here.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// How far ahead of the handed out records the limit is committed, at least.
const MIN_LIMIT_STEP: i64 = 64;

/// How far ahead of the handed out records the limit is committed, at most.
const MAX_LIMIT_STEP: i64 = 2048;

/// A decoded record.
pub(super) struct Record {
    /// The delivery, with an empty token.
    pub(super) delivery: Delivery,
    pub(super) size: usize,
    /// Whether the record has a time of its own, which is the same whenever it is read.
    pub(super) dated: bool,
}

/// Where a partition goes on, and what an earlier owner left of it.
pub(super) struct ResumePoint {
    pub(super) partition: TopicPartition,
    pub(super) note: OffsetNote,
    /// Records before this offset may have been in flight when an earlier owner died.
    pub(super) suspect_until: i64,
    /// The ranges that are wanted; `None` for all of it.
    pub(super) wanted: Option<Vec<(i64, i64)>>,
    /// Whether progress is committed.
    pub(super) durable: bool,
    /// The store's position, if the store is to know of this partition.
    pub(super) position: Option<Position>,
}

/// A partition that this receiver reads.
pub(super) struct Partition {
    pub(super) resumed: ResumePoint,
    tracker: OffsetTracker,
    /// Records that were read and are not handed out.
    waiting: BTreeMap<i64, Arc<Record>>,
    waiting_bytes: usize,
    /// How many records are handed out.
    pub(super) handed_out: usize,
    /// Whether the partition is to be given up: nothing more is handed out.
    draining: bool,
    /// Records from here on are handed out only when a higher limit is committed. The next owner after a crash knows by
    /// the limit which records may have been in flight.
    limit: i64,
    /// One past the last offset that was handed out.
    handed_out_below: i64,
    /// `handed_out_below` when the limit was raised last.
    handed_out_at_raise: i64,
    /// Whether the limit stands in the way.
    limit_reached: bool,
    changed: bool,
    /// The fingerprint of a record that was read, by which the topic can be known again.
    fingerprint: Option<Fingerprint>,
    /// Whether there was no room for more records; half of them have to go before there is.
    full: bool,
}

impl Partition {
    pub(super) fn new(resumed: ResumePoint) -> Self {
        let base = resumed.note.handled_below;
        Self {
            tracker: OffsetTracker::new(&resumed.note),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            handed_out: 0,
            draining: false,
            limit: if resumed.durable { base } else { i64::MAX },
            // what an earlier owner had out stays suspect until it is finished
            handed_out_below: resumed.suspect_until.max(base),
            handed_out_at_raise: resumed.suspect_until.max(base),
            limit_reached: resumed.durable,
            changed: false,
            fingerprint: None,
            full: false,
            resumed,
        }
    }

    /// Takes a record in, unless it is finished or not wanted.
    pub(super) fn push(&mut self, offset: i64, record: Record) {
        if self.fingerprint.is_none() && self.resumed.position.is_some() && record.dated {
            self.fingerprint = Some(Fingerprint::of(offset, &record.delivery.message.headers));
        }
        if !self.tracker.read(offset) {
            return;
        }
        self.changed = true;
        let wanted = |ranges: &Vec<(i64, i64)>| ranges.iter().any(|(from, until)| (*from..*until).contains(&offset));
        if !self.resumed.wanted.as_ref().is_none_or(wanted) {
            return self.tracker.finish(offset);
        }
        self.put_back(offset, Arc::new(record));
    }

    /// Has a record wait to be handed out, unless the partition is given up.
    pub(super) fn put_back(&mut self, offset: i64, record: Arc<Record>) {
        if !self.draining {
            self.waiting_bytes += record.size;
            self.waiting.insert(offset, record);
        }
    }

    /// The next record that may be handed out.
    pub(super) fn pop(&mut self) -> Option<(i64, Arc<Record>)> {
        if self.draining {
            return None;
        }
        let next = self.waiting.first_entry()?;
        let offset = *next.key();
        if offset >= self.limit {
            self.limit_reached = true;
            return None;
        }
        if self.resumed.durable && offset >= self.tracker.handled_below() + MAX_UNFINISHED_SPAN {
            return None;
        }
        let record = next.remove();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(record.size);
        self.handed_out_below = self.handed_out_below.max(offset + 1);
        self.handed_out += 1;
        Some((offset, record))
    }

    pub(super) fn finish(&mut self, offset: i64) {
        self.tracker.finish(offset);
        self.changed = true;
    }

    /// How many more records may be read while at most `max` wait: none while the partition is given up.
    pub(super) fn room(&mut self, max: usize) -> usize {
        let waiting = self.waiting.len();
        self.full =
            waiting >= max || self.waiting_bytes >= MAX_WAITING_BYTES || (self.full && !self.is_half_empty(max));
        if self.full || self.draining { 0 } else { max - waiting }
    }

    /// Whether there was no room, and there is again.
    pub(super) fn has_room_again(&self, max: usize) -> bool {
        self.full && self.is_half_empty(max)
    }

    fn is_half_empty(&self, max: usize) -> bool {
        self.waiting.len() < max / 2 && self.waiting_bytes < MAX_WAITING_BYTES / 2
    }

    /// Gives up the records that were not handed out.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Whether the next commit cannot wait for its regular time.
    pub(super) fn needs_commit_now(&self) -> bool {
        self.resumed.durable && self.limit_reached && !self.draining
    }

    /// The note to commit, if anything changed, or (`with_position`) if the store does not know of it yet. `last` says that
    /// nothing will be handed out any more.
    pub(super) fn pending_commit(&mut self, last: bool, with_position: bool) -> Option<OffsetNote> {
        let base = self.tracker.handled_below();
        let behind = self.resumed.position.as_ref().is_some_and(|position| position.handled_below < base);
        if !self.resumed.durable || !(self.changed || self.limit_reached || last || (with_position && behind)) {
            return None;
        }
        let limit_reached = std::mem::take(&mut self.limit_reached);
        self.changed = false;
        if last || self.draining {
            // nothing is in flight but what an earlier owner may have had
            let suspect = if base < self.resumed.suspect_until { self.resumed.suspect_until } else { base };
            return Some(self.tracker.note(if self.handed_out == 0 { suspect } else { self.handed_out_below }));
        }
        if limit_reached || self.handed_out_below > self.handed_out_at_raise {
            let step = ((self.handed_out_below - self.handed_out_at_raise) * 2).clamp(MIN_LIMIT_STEP, MAX_LIMIT_STEP);
            self.handed_out_at_raise = self.handed_out_below;
            return Some(self.tracker.note(self.limit.max(self.handed_out_below.max(base) + step)));
        }
        Some(self.tracker.note(self.limit))
    }

    /// Notes that a commit has succeeded.
    pub(super) fn committed(&mut self, note: &OffsetNote) {
        self.limit = self.limit.max(note.limit);
    }

    /// Notes that a commit has failed.
    pub(super) fn commit_failed(&mut self) {
        self.changed = true;
        self.limit_reached = true;
    }

    /// The position that the store is to know, now that the group has committed `handled_below`.
    pub(super) fn position_to_advance(&mut self, handled_below: i64) -> Option<Position> {
        let handled_below = handled_below.min(self.tracker.handled_below());
        let position = self.resumed.position.as_mut().filter(|position| position.handled_below < handled_below)?;
        if let Some(fingerprint) = self.fingerprint.take_if(|fingerprint| fingerprint.offset < handled_below) {
            position.fingerprint = fingerprint.text();
        }
        Some(Position { handled_below, ..position.clone() })
    }

    /// Notes that the store has advanced its position; or (not `accepted`) that another process has claimed the partition
    /// or an operator has reset it, and that the store takes no more.
    pub(super) fn position_advanced(&mut self, handled_below: i64, accepted: bool) {
        match &mut self.resumed.position {
            Some(position) if accepted => position.handled_below = position.handled_below.max(handled_below),
            position => *position = None,
        }
    }
}
