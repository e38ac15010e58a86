//! Which rows are read ahead, handed out and paused. No waiting, no database: only the bookkeeping.
//!
//! Here: following the lease, and reading. `handing` has the other half, handing out and settling.

use super::tenure::Tenure;
use foldhash::{HashMap, HashSet};
use sagabus_core::{LeaseView, QueueRow, SHARDS, Token};
use std::{collections::BTreeMap, time::Duration};

/// The rows that this node knows of. A row is in exactly one of `ready`, `paused` and `out`, and in `known`.
pub(super) struct Desk {
    pub(super) window: usize,
    pub(super) ordered: bool,
    pub(super) stopped: bool,
    /// By shard.
    pub(super) tenures: Vec<Option<Tenure>>,
    numbers: u64,
    generation: u64,
    /// Read ahead, in the order in which it is handed out.
    pub(super) ready: BTreeMap<i64, QueueRow>,
    /// Requeued, until when; on an ordered queue with all that follows it in its shard.
    pub(super) paused: BTreeMap<(Duration, i64), QueueRow>,
    pub(super) out: HashMap<i64, Out>,
    pub(super) known: HashSet<i64>,
    /// Handed out under a tenure that is over, and not settled yet: these tokens mean nothing any more, but the work is
    /// under way and counts against the window.
    pub(super) void: HashSet<Token>,
    /// What was settled while a read was under way: the read may have seen the rows before they went.
    pub(super) gone: Option<HashSet<i64>>,
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
pub(super) struct Plan {
    pub(super) shards: Vec<u16>,
    pub(super) after: i64,
    /// How many rows more than usual, because so many of them are known already.
    pub(super) extra: usize,
    numbers: u64,
    resets: u64,
}

/// With fewer rows than this at hand, more are read.
const LOW: usize = 500;

const START: i64 = i64::MIN;

impl Desk {
    pub(super) fn new(window: usize, ordered: bool) -> Self {
        Self {
            window: window.max(1),
            ordered,
            stopped: false,
            tenures: (0..SHARDS).map(|_| None).collect(),
            numbers: 0,
            generation: 0,
            ready: BTreeMap::new(),
            paused: BTreeMap::new(),
            out: HashMap::default(),
            known: HashSet::default(),
            void: HashSet::default(),
            gone: None,
            cursor: START,
            at_end: false,
            resets: 0,
        }
    }

    pub(super) fn tenure(&self, shard: u16) -> Option<&Tenure> {
        self.tenures.get(usize::from(shard)).and_then(Option::as_ref)
    }

    pub(super) fn tenure_mut(&mut self, shard: u16) -> Option<&mut Tenure> {
        self.tenures.get_mut(usize::from(shard)).and_then(Option::as_mut)
    }

    /// Follows the lease. Answers which shards can be released.
    pub(super) fn follow(&mut self, view: &LeaseView) -> Vec<(u16, i64)> {
        let mut lost: Vec<Option<u64>> = Vec::with_capacity(self.tenures.len());
        let (mut dropped, mut gained) = (false, false);
        for (shard, slot) in (0..SHARDS).zip(&mut self.tenures) {
            let (held, surplus) = (view.epoch(shard), view.surplus.contains(&shard));
            lost.push(None);
            if let Some(tenure) = slot {
                if held != Some(tenure.epoch) || view.generation != self.generation {
                    lost.pop();
                    lost.push(Some(tenure.number));
                    *slot = None;
                    dropped = true;
                } else {
                    dropped |= surplus && !tenure.surplus;
                    gained |= tenure.surplus && !surplus;
                    tenure.surplus = surplus;
                }
            }
            if slot.is_none()
                && let Some(epoch) = held
            {
                self.numbers += 1;
                let inherited = view.inherited.contains(&shard);
                *slot = Some(Tenure::new(self.numbers, epoch, surplus, inherited, self.window));
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

    /// Drops what was read of shards that are lost (with the tenure's number) or only finished. What is handed out stays
    /// with its tenure, and becomes void with it.
    fn forget(&mut self, lost: &[Option<u64>]) {
        let lost = |shard: u16| lost.get(usize::from(shard)).copied().flatten();
        let Self { tenures, known, void, .. } = self;
        let mut keep = |row: &QueueRow| {
            let active = tenures.get(usize::from(row.shard)).and_then(Option::as_ref).is_some_and(Tenure::active);
            let keep = active && lost(row.shard).is_none();
            if !keep {
                known.remove(&row.id);
            }
            keep
        };
        self.ready.retain(|_, row| keep(row));
        self.paused.retain(|_, row| keep(row));
        self.out.retain(|id, out| match lost(out.row.shard) {
            Some(number) => {
                known.remove(id);
                void.insert(super::handing::token(number, out.row.shard, *id));
                false
            }
            None => true,
        });
    }

    /// Finished surplus shards, once each.
    pub(super) fn drained(&mut self) -> Vec<(u16, i64)> {
        let mut release = Vec::new();
        for (shard, tenure) in (0..SHARDS).zip(&mut self.tenures) {
            if let Some(tenure) = tenure
                && tenure.surplus
                && tenure.out == 0
                && !tenure.releasing
            {
                tenure.releasing = true;
                release.push((shard, tenure.epoch));
            }
        }
        release
    }

    /// Reads from the start again: rows that committed late may lie behind the cursor.
    pub(super) fn rescan(&mut self) {
        self.cursor = START;
        self.at_end = false;
        self.resets += 1;
    }

    /// There may be more rows.
    pub(super) fn hint(&mut self) {
        // with little at hand, reading from the start costs the same and finds the late ones too
        if self.known.len() <= LOW / 8 {
            self.rescan();
        }
        self.at_end = false;
    }

    /// Whether reading is at the start.
    pub(super) fn at_start(&self) -> bool {
        self.cursor == START
    }

    /// Whether the last read found nothing more.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Whether rows should be read ahead again, now that some were handed out.
    pub(super) fn hungry(&self) -> bool {
        !self.at_end && self.ready.len() < LOW
    }

    /// What to read now, if anything. Every plan must be answered with [`take_in`](Desk::take_in) or
    /// [`give_up`](Desk::give_up).
    pub(super) fn plan(&mut self) -> Option<Plan> {
        let enough = self.ready.len() >= LOW || self.ready.len() + self.paused.len() >= LOW + self.window;
        if self.stopped || self.at_end || enough {
            return None;
        }
        let shards: Vec<u16> = (0..SHARDS).filter(|s| self.tenure(*s).is_some_and(Tenure::active)).collect();
        if shards.is_empty() {
            return None;
        }
        self.gone = Some(HashSet::default());
        // a row may be committed after one with a higher id, and be found behind the cursor only when those that were
        // sent after it are handed out: on an ordered queue every read begins at the start, and sees what a row follows
        let (after, extra) = if self.ordered { (START, self.known.len()) } else { (self.cursor, 0) };
        Some(Plan { shards, after, extra, numbers: self.numbers, resets: self.resets })
    }

    pub(super) fn give_up(&mut self) {
        self.gone = None;
    }

    /// Takes in what was read; `end` says that there was no more. Answers whether any of it was new.
    pub(super) fn take_in(&mut self, plan: &Plan, rows: Vec<QueueRow>, end: bool, now: Duration) -> bool {
        let gone = self.gone.take().unwrap_or_default();
        if self.stopped {
            return false;
        }
        let mut new = false;
        let last = rows.last().map(|row| row.id);
        for row in rows {
            let Some(tenure) = self.tenures.get_mut(usize::from(row.shard)).and_then(Option::as_mut) else {
                continue;
            };
            // a shard that was lost and taken again meanwhile is read again from the start
            if tenure.number > plan.numbers || !tenure.active() || gone.contains(&row.id) || !self.known.insert(row.id)
            {
                continue;
            }
            new = true;
            tenure.seen(&row);
            if tenure.blocked > now {
                self.paused.insert((tenure.blocked, row.id), row);
            } else {
                self.ready.insert(row.id, row);
            }
        }
        if plan.resets == self.resets {
            self.cursor = last.unwrap_or(plan.after);
            self.at_end = end;
            if end {
                for tenure in self.tenures.iter_mut().flatten() {
                    tenure.seen_all();
                }
            }
        }
        new
    }

    /// Makes what was paused ready again. Answers whether there was any, and when the next is due.
    pub(super) fn resume(&mut self, now: Duration) -> (bool, Option<Duration>) {
        let mut resumed = false;
        while let Some(entry) = self.paused.first_entry() {
            if entry.key().0 > now {
                return (resumed, Some(entry.key().0));
            }
            let row = entry.remove();
            self.ready.insert(row.id, row);
            resumed = true;
        }
        (resumed, None)
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
        let mut desk = Desk::new(4, true);
        desk.follow(&LeaseView { shards: vec![(0, 1), (1, 1)], ..LeaseView::default() });
        let plan = desk.plan().unwrap();
        desk.take_in(&plan, vec![row(10)], false, Duration::ZERO);
        let plan = desk.plan().unwrap();
        // pages of one row
        let rows = [9, 10, 11].into_iter().filter(|id| *id > plan.after).take(1 + plan.extra).map(row).collect();
        desk.take_in(&plan, rows, false, Duration::ZERO);
        let plan = desk.plan().unwrap();
        let rows = [9, 10, 11].into_iter().filter(|id| *id > plan.after).take(1 + plan.extra).map(row).collect();
        desk.take_in(&plan, rows, false, Duration::ZERO);
        let taken: Vec<i64> = desk.take(4).iter().map(|taken| taken.row.id).collect();
        assert_eq!(taken, [9, 10, 11]);
    }
}
