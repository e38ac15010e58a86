//! Which rows are read ahead and handed out. No waiting, no database: only the bookkeeping.
//!
//! Here: following the lease, and reading. `in_flight` hands out and settles.

use super::{shard_lease::ShardLease, token::token};
use foldhash::{HashMap, HashSet};
use sagabus_core::{LeaseView, QueueRow, SHARDS, Token};
use std::collections::BTreeMap;

/// The rows that this node knows of. A row is in exactly one of `ready` and `out`, and in `known`.
pub(super) struct ReadAhead {
    pub(super) window: usize,
    pub(super) ordered: bool,
    pub(super) stopped: bool,
    /// By shard.
    pub(super) shard_leases: Vec<Option<ShardLease>>,
    next_number: u64,
    generation: u64,
    /// Read ahead, in the order in which it is handed out.
    pub(super) ready: BTreeMap<i64, QueueRow>,
    pub(super) out: HashMap<i64, Out>,
    pub(super) known: HashSet<i64>,
    /// Handed out under a shard lease that is over, and not settled yet: these tokens mean nothing any more, but the work is
    /// under way and counts against the window.
    pub(super) stale_tokens: HashSet<Token>,
    /// What was settled while a read was under way: the read may have seen the rows before they went.
    pub(super) deleted_during_read: Option<HashSet<i64>>,
    /// Every row of the active shards up to here is known or gone.
    cursor: i64,
    at_end: bool,
    resets: u64,
}

/// A row that is handed out.
pub(super) struct Out {
    pub(super) row: QueueRow,
    /// Settled as done, not yet deleted.
    pub(super) done: bool,
}

/// What to read next.
pub(super) struct NextRead {
    pub(super) shards: Vec<u16>,
    pub(super) after: i64,
    /// How many rows more than usual, because so many of them are known already.
    pub(super) extra: usize,
    next_number: u64,
    resets: u64,
}

/// With fewer rows than this at hand, more are read.
const READ_AHEAD_LOW_WATERMARK: usize = 500;

const BEFORE_FIRST_ROW: i64 = i64::MIN;

impl ReadAhead {
    pub(super) fn new(window: usize, ordered: bool) -> Self {
        Self {
            window: window.max(1),
            ordered,
            stopped: false,
            shard_leases: (0..SHARDS).map(|_| None).collect(),
            next_number: 0,
            generation: 0,
            ready: BTreeMap::new(),
            out: HashMap::default(),
            known: HashSet::default(),
            stale_tokens: HashSet::default(),
            deleted_during_read: None,
            cursor: BEFORE_FIRST_ROW,
            at_end: false,
            resets: 0,
        }
    }

    pub(super) fn shard_lease(&self, shard: u16) -> Option<&ShardLease> {
        self.shard_leases.get(usize::from(shard)).and_then(Option::as_ref)
    }

    pub(super) fn shard_lease_mut(&mut self, shard: u16) -> Option<&mut ShardLease> {
        self.shard_leases.get_mut(usize::from(shard)).and_then(Option::as_mut)
    }

    /// Follows the lease. Answers which shards can be released.
    pub(super) fn follow(&mut self, view: &LeaseView) -> Vec<(u16, i64)> {
        let mut lost: Vec<Option<u64>> = Vec::with_capacity(self.shard_leases.len());
        let (mut dropped, mut gained) = (false, false);
        for (shard, slot) in (0..SHARDS).zip(&mut self.shard_leases) {
            let (held, surplus) = (view.epoch(shard), view.surplus.contains(&shard));
            lost.push(None);
            if let Some(shard_lease) = slot {
                if held != Some(shard_lease.epoch) || view.generation != self.generation {
                    lost.pop();
                    lost.push(Some(shard_lease.number));
                    *slot = None;
                    dropped = true;
                } else {
                    dropped |= surplus && !shard_lease.surplus;
                    gained |= shard_lease.surplus && !surplus;
                    shard_lease.surplus = surplus;
                }
            }
            if slot.is_none()
                && let Some(epoch) = held
            {
                self.next_number += 1;
                let inherited = view.inherited.contains(&shard);
                *slot = Some(ShardLease::new(self.next_number, epoch, surplus, inherited, self.window));
                gained = true;
            }
        }
        self.generation = view.generation;
        if dropped {
            self.forget(&lost);
        }
        if gained {
            self.rescan();
        }
        self.drained()
    }

    /// Drops what was read of shards that are lost (with the shard lease's number) or only finished. What is handed out stays
    /// with its shard lease, and becomes void with it.
    fn forget(&mut self, lost: &[Option<u64>]) {
        let lost = |shard: u16| lost.get(usize::from(shard)).copied().flatten();
        let Self { shard_leases, known, stale_tokens, .. } = self;
        self.ready.retain(|_, row| {
            let active =
                shard_leases.get(usize::from(row.shard)).and_then(Option::as_ref).is_some_and(ShardLease::active);
            let keep = active && lost(row.shard).is_none();
            if !keep {
                known.remove(&row.id);
            }
            keep
        });
        self.out.retain(|id, out| match lost(out.row.shard) {
            Some(number) => {
                known.remove(id);
                stale_tokens.insert(token(number, out.row.shard, *id));
                false
            }
            None => true,
        });
    }

    /// Finished surplus shards, once each.
    pub(super) fn drained(&mut self) -> Vec<(u16, i64)> {
        let mut release = Vec::new();
        for (shard, shard_lease) in (0..SHARDS).zip(&mut self.shard_leases) {
            if let Some(shard_lease) = shard_lease
                && shard_lease.surplus
                && shard_lease.out == 0
                && !shard_lease.releasing
            {
                shard_lease.releasing = true;
                release.push((shard, shard_lease.epoch));
            }
        }
        release
    }

    /// Reads from the start again: rows that committed late may lie behind the cursor.
    pub(super) fn rescan(&mut self) {
        self.cursor = BEFORE_FIRST_ROW;
        self.at_end = false;
        self.resets += 1;
    }

    /// There may be more rows.
    pub(super) fn hint(&mut self) {
        // with little at hand, reading from the start costs the same and finds the late ones too
        if self.known.len() <= READ_AHEAD_LOW_WATERMARK / 8 {
            self.rescan();
        }
        self.at_end = false;
    }

    /// Whether reading is at the start.
    pub(super) fn at_start(&self) -> bool {
        self.cursor == BEFORE_FIRST_ROW
    }

    /// Whether the last read found nothing more.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Whether rows should be read ahead again, now that some were handed out.
    pub(super) fn below_low_watermark(&self) -> bool {
        !self.at_end && self.ready.len() < READ_AHEAD_LOW_WATERMARK
    }

    /// What to read now, if anything. Every plan must be answered with [`take_in`](ReadAhead::take_in) or
    /// [`give_up`](ReadAhead::give_up).
    pub(super) fn plan(&mut self) -> Option<NextRead> {
        if self.stopped || !self.below_low_watermark() {
            return None;
        }
        let shards: Vec<u16> = (0..SHARDS).filter(|s| self.shard_lease(*s).is_some_and(ShardLease::active)).collect();
        if shards.is_empty() {
            return None;
        }
        self.deleted_during_read = Some(HashSet::default());
        // a row may be committed after one with a higher id, and be found behind the cursor only when those that were
        // sent after it are handed out: on an ordered queue every read begins at the start, and sees what a row follows
        let (after, extra) = if self.ordered { (BEFORE_FIRST_ROW, self.known.len()) } else { (self.cursor, 0) };
        Some(NextRead { shards, after, extra, next_number: self.next_number, resets: self.resets })
    }

    pub(super) fn give_up(&mut self) {
        self.deleted_during_read = None;
    }

    /// Takes in what was read; `end` says that there was no more. Answers whether any of it was new.
    pub(super) fn take_in(&mut self, plan: &NextRead, rows: Vec<QueueRow>, end: bool) -> bool {
        let deleted_during_read = self.deleted_during_read.take().unwrap_or_default();
        if self.stopped {
            return false;
        }
        let mut new = false;
        let last = rows.last().map(|row| row.id);
        for row in rows {
            let Some(shard_lease) = self.shard_leases.get_mut(usize::from(row.shard)).and_then(Option::as_mut) else {
                continue;
            };
            // a shard that was lost and taken again meanwhile is read again from the start
            if shard_lease.number > plan.next_number
                || !shard_lease.active()
                || deleted_during_read.contains(&row.id)
                || !self.known.insert(row.id)
            {
                continue;
            }
            new = true;
            shard_lease.seen(&row);
            self.ready.insert(row.id, row);
        }
        if plan.resets == self.resets {
            self.cursor = last.unwrap_or(plan.after);
            self.at_end = end;
            if end {
                for shard_lease in self.shard_leases.iter_mut().flatten() {
                    shard_lease.seen_all();
                }
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus_core::MessageId;

    /// Row 9 is committed after row 10 was read; row 11 is sent when 9 is there, under the same key.
    #[test]
    fn an_ordered_queue_hands_out_a_late_row_before_what_follows_it() {
        let row = |id: i64| QueueRow {
            id,
            shard: u16::from(id != 10),
            message_id: MessageId(uuid::Uuid::nil()),
            headers: "{}".into(),
            body: bytes::Bytes::new(),
        };
        let mut read_ahead = ReadAhead::new(4, true);
        read_ahead.follow(&LeaseView { shards: vec![(0, 1), (1, 1)], ..LeaseView::default() });
        let plan = read_ahead.plan().unwrap();
        read_ahead.take_in(&plan, vec![row(10)], false);
        let plan = read_ahead.plan().unwrap();
        // pages of one row
        let rows = [9, 10, 11].into_iter().filter(|id| *id > plan.after).take(1 + plan.extra).map(row).collect();
        read_ahead.take_in(&plan, rows, false);
        let plan = read_ahead.plan().unwrap();
        let rows = [9, 10, 11].into_iter().filter(|id| *id > plan.after).take(1 + plan.extra).map(row).collect();
        read_ahead.take_in(&plan, rows, false);
        let taken: Vec<i64> = read_ahead.take(4).iter().map(|taken| taken.row.id).collect();
        assert_eq!(taken, [9, 10, 11]);
    }
}
