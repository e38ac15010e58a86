//! The read-ahead buffer against a table that is as simple as can be, at random.

use super::{in_flight::Taken, read_ahead::ReadAhead};
use bytes::Bytes;
use sagabus_core::{LeaseView, MessageId, QueueRow, Runtime, Settle, Settlement, Token};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const SHARDS: u16 = 4;
const WINDOW: usize = 7;
const PAGE: usize = 5;

struct Model {
    runtime: Runtime,
    read_ahead: ReadAhead,
    ordered: bool,
    /// Rows of the table: id to shard. Some are not visible yet.
    table: BTreeMap<i64, u16>,
    invisible: BTreeSet<i64>,
    ids: i64,
    view: LeaseView,
    epochs: i64,
    /// Handed out under shard leases that still run, and those whose shard lease is over.
    out: HashMap<Token, i64>,
    stale: Vec<Token>,
    /// Ordered: the highest id handed out of a shard, unless something of it came back since.
    highest: BTreeMap<u16, i64>,
    /// Ordered: what appeared late and was not handed out yet, and the last id that there was by then.
    late: BTreeMap<i64, i64>,
    /// Ordered: what came back, and must be handed out again before anything that follows it.
    back: BTreeSet<(u16, i64)>,
    taken: u64,
    deleted: u64,
}

impl Model {
    fn new(seed: u64, ordered: bool) -> Self {
        Self {
            runtime: Runtime::manual(seed),
            read_ahead: ReadAhead::new(WINDOW, ordered),
            ordered,
            table: BTreeMap::new(),
            invisible: BTreeSet::new(),
            ids: 0,
            view: LeaseView::default(),
            epochs: 0,
            out: HashMap::new(),
            stale: Vec::new(),
            highest: BTreeMap::new(),
            late: BTreeMap::new(),
            back: BTreeSet::new(),
            taken: 0,
            deleted: 0,
        }
    }

    fn dice(&self, sides: u64) -> u64 {
        self.runtime.random() % sides
    }

    fn shard(&self) -> u16 {
        u16::try_from(self.dice(u64::from(SHARDS))).unwrap()
    }

    fn step(&mut self) {
        match self.dice(11) {
            0 | 1 => self.insert(),
            2 => self.appear(),
            3 => self.lease(),
            4..=6 => self.read(),
            7 | 8 => self.take(),
            _ => self.settle(),
        }
        assert!(self.out.len() + self.stale.len() <= WINDOW, "more out than the window");
    }

    fn insert(&mut self) {
        for _ in 0..self.dice(6) {
            self.ids += 1;
            let shard = self.shard();
            self.table.insert(self.ids, shard);
            if self.dice(10) == 0 {
                self.invisible.insert(self.ids);
            }
        }
        self.read_ahead.hint();
    }

    /// A transaction commits late, or the prefetcher looks from the start.
    fn appear(&mut self) {
        if let Some(id) = self.invisible.pop_first() {
            self.late.insert(id, self.ids);
        }
        self.read_ahead.rescan();
    }

    fn lease(&mut self) {
        let shard = self.shard();
        let mut view = self.view.clone();
        match self.dice(6) {
            0 => view.generation += 1,
            1 => view.shards.retain(|(s, _)| *s != shard),
            2 => view.surplus = view.shards.iter().map(|(s, _)| *s).filter(|s| *s == shard).collect(),
            3 => view.surplus.clear(),
            _ => {
                view.shards.retain(|(s, _)| *s != shard);
                self.epochs += 1;
                view.shards.push((shard, self.epochs));
                view.shards.sort_unstable();
                if self.dice(2) == 0 {
                    view.inherited.push(shard);
                }
            }
        }
        view.surplus.retain(|s| view.shards.iter().any(|(v, _)| v == s));
        self.follow(view);
    }

    fn follow(&mut self, mut view: LeaseView) {
        let lost = |(shard, epoch): &(u16, i64)| {
            view.generation != self.view.generation || !view.shards.contains(&(*shard, *epoch))
        };
        let lost: BTreeSet<u16> = self.view.shards.iter().filter(|s| lost(s)).map(|(s, _)| *s).collect();
        let released = self.read_ahead.follow(&view);
        self.void(&lost);
        self.highest.clear();
        self.back.clear();
        if released.is_empty() {
            self.view = view;
            return;
        }
        for (shard, epoch) in &released {
            assert!(view.surplus.contains(shard) && view.epoch(*shard) == Some(*epoch));
            assert!(!self.out.values().any(|id| self.table[id] == *shard), "released with work in flight");
        }
        // what is released goes with the next heartbeat
        view.shards.retain(|s| !released.contains(s));
        view.surplus.retain(|s| view.shards.iter().any(|(v, _)| v == s));
        self.view = view.clone();
        self.read_ahead.follow(&view);
    }

    fn void(&mut self, lost: &BTreeSet<u16>) {
        let gone: Vec<Token> =
            self.out.iter().filter(|(_, id)| lost.contains(&self.table[*id])).map(|o| *o.0).collect();
        for token in gone {
            self.out.remove(&token);
            self.stale.push(token);
        }
    }

    fn row(&self, id: i64) -> QueueRow {
        let message_id = MessageId(self.runtime.uuid());
        QueueRow { id, shard: self.table[&id], message_id, headers: Bytes::new(), body: Bytes::new() }
    }

    fn read(&mut self) {
        let Some(plan) = self.read_ahead.plan() else { return };
        if self.dice(10) == 0 {
            return self.read_ahead.give_up();
        }
        let visible = |id: &i64| !self.invisible.contains(id) && plan.shards.contains(&self.table[id]);
        let after = plan.after.saturating_add(1);
        let rows: Vec<i64> =
            self.table.range(after..).map(|(id, _)| *id).filter(visible).take(PAGE + plan.extra).collect();
        let rows: Vec<QueueRow> = rows.into_iter().map(|id| self.row(id)).collect();
        // while it is under way, what is out is settled and the lease changes
        for _ in 0..self.dice(3) {
            self.settle();
        }
        if self.dice(8) == 0 {
            self.lease();
        }
        let end = rows.len() < PAGE + plan.extra;
        self.read_ahead.take_in(&plan, rows, end);
    }

    fn take(&mut self) {
        let max = usize::try_from(1 + self.dice(4)).unwrap();
        for Taken { row, token, epoch, .. } in self.read_ahead.take(max) {
            self.taken += 1;
            assert_eq!(self.view.epoch(row.shard), Some(epoch), "of a shard that is not held");
            assert!(!self.view.surplus.contains(&row.shard), "of a shard that is only finished");
            assert!(self.table.contains_key(&row.id), "of a row that this node itself has removed");
            assert!(!self.out.values().any(|id| *id == row.id), "row {} is out twice", row.id);
            assert!(self.out.insert(token, row.id).is_none(), "a token was given twice");
            if self.ordered {
                let late = self.late.remove(&row.id).is_some();
                let before = if late { None } else { self.highest.insert(row.shard, row.id) };
                assert!(before.is_none_or(|b| b < row.id), "{before:?} before {} in {}", row.id, row.shard);
                // what was sent before it appeared may go first, what came later must not
                let in_shard = |id: &i64| self.table.get(id) == Some(&row.shard);
                let overtaken = self.late.iter().find(|(id, ids)| in_shard(id) && **ids < row.id);
                assert!(overtaken.is_none(), "{} overtakes the late {overtaken:?}", row.id);
                let first = self.back.range((row.shard, 0)..).next().copied();
                let overtaken = first.filter(|first| first.0 == row.shard && first.1 < row.id);
                assert!(overtaken.is_none(), "{} overtakes {overtaken:?}", row.id);
                self.back.remove(&(row.shard, row.id));
            }
        }
    }

    fn settle(&mut self) {
        let nth = usize::try_from(self.dice(WINDOW as u64)).unwrap();
        let stale = self.dice(6) == 0;
        let mut out: Vec<Token> = self.out.keys().copied().collect();
        out.sort_unstable_by_key(|token| (token.position, token.epoch));
        let token = if stale { self.stale.get(nth).copied() } else { out.get(nth).copied() };
        let Some(token) = token else { return };
        let settle = [Settle::Done, Settle::Done, Settle::Committed, Settle::Return, Settle::Return];
        let settle = settle[usize::try_from(self.dice(5)).unwrap()];
        if let (false, Settle::Committed) = (stale, settle) {
            // the commit came first
            self.deleted += 1;
            let id = self.out.remove(&token).unwrap();
            self.table.remove(&id);
        }
        let settled = self.read_ahead.settle(&[Settlement { token, settle }]);
        if stale {
            assert!(settled.done.is_empty(), "a stale token settled something");
            self.stale.retain(|s| *s != token);
        } else {
            match settle {
                Settle::Done => {
                    assert_eq!(settled.done, [token]);
                    self.deleted += 1;
                    let id = self.out.remove(&token).unwrap();
                    self.table.remove(&id);
                    self.read_ahead.finish(&settled.done);
                }
                Settle::Committed => {}
                Settle::Return => {
                    let id = self.out.remove(&token).unwrap();
                    self.late.insert(id, self.ids);
                    self.back.insert((self.table[&id], id));
                }
            }
        }
        let released = [settled.release, self.read_ahead.drained()].concat();
        if !released.is_empty() {
            let mut view = self.view.clone();
            view.shards.retain(|s| !released.contains(s));
            view.surplus.retain(|s| view.shards.iter().any(|(v, _)| v == s));
            self.follow(view);
        }
    }

    /// With all shards in hand and everything visible, the table is emptied.
    fn finish(&mut self) {
        self.invisible.clear();
        self.epochs += 1;
        let shards = (0..SHARDS).map(|s| (s, self.epochs)).collect();
        let generation = self.view.generation;
        self.follow(LeaseView { shards, generation, ..LeaseView::default() });
        for token in std::mem::take(&mut self.stale) {
            self.read_ahead.settle(&[Settlement { token, settle: Settle::Return }]);
        }
        self.read_ahead.rescan();
        for _ in 0..10_000 {
            if self.table.is_empty() {
                return;
            }
            if let Some(plan) = self.read_ahead.plan() {
                let mine = |id: &i64| plan.shards.contains(&self.table[id]);
                let after = plan.after.saturating_add(1);
                let rows: Vec<i64> =
                    self.table.range(after..).map(|(id, _)| *id).filter(mine).take(PAGE + plan.extra).collect();
                let rows: Vec<QueueRow> = rows.into_iter().map(|id| self.row(id)).collect();
                let end = rows.len() < PAGE + plan.extra;
                self.read_ahead.take_in(&plan, rows, end);
            }
            self.take();
            for (token, id) in std::mem::take(&mut self.out) {
                let settled = self.read_ahead.settle(&[Settlement { token, settle: Settle::Done }]);
                self.table.remove(&id);
                self.read_ahead.finish(&settled.done);
            }
        }
        panic!("{} rows are never handed out: {:?}", self.table.len(), self.table);
    }
}

#[test]
fn at_random() {
    let (mut taken, mut deleted) = (0, 0);
    for seed in 0..400 {
        let mut model = Model::new(seed, seed % 2 == 0);
        for _ in 0..400 {
            model.step();
        }
        model.finish();
        taken += model.taken;
        deleted += model.deleted;
    }
    assert!(taken > 10_000 && deleted > 1000, "{taken} {deleted}");
}
