//! What a receiver has at hand, has handed out, and has to write down. No waiting, no input or output.

use super::{
    committer::Commit,
    lane::{Lane, Parcel, Place, Start},
};
use sagabus_core::{Delivery, Position, Settle, Settlement, Token};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// At most so many are taken from one partition before it is the next one's turn.
const TURN: usize = 16;

/// So many records of a partition may always wait.
const LEAST_AHEAD: usize = 128;

pub(super) struct Desk {
    window: usize,
    ordered: bool,
    /// Nothing more is handed out.
    pub(super) stopped: bool,
    /// By the number of the assignment, which is the epoch in tokens: one that was revoked is never known again.
    lanes: BTreeMap<u64, Lane>,
    numbers: HashMap<Place, u64>,
    epochs: u64,
    positions: u64,
    /// Whose turn it is.
    turn: u64,
    /// Requeued, until when.
    held: BTreeMap<(Duration, u64, i64), Arc<Parcel>>,
    out: HashMap<u64, (u64, i64, Arc<Parcel>)>,
    /// Handed out from a partition that is gone, and not settled: they mean nothing any more, but the work is under way.
    void: HashSet<Token>,
}

impl Desk {
    /// The epochs begin at a number that no other receiver has.
    pub(super) fn new(window: usize, ordered: bool, epochs: u64) -> Self {
        Self {
            window: window.max(1),
            ordered,
            stopped: false,
            lanes: BTreeMap::new(),
            numbers: HashMap::new(),
            epochs,
            positions: 0,
            turn: 0,
            held: BTreeMap::new(),
            out: HashMap::new(),
            void: HashSet::new(),
        }
    }

    pub(super) fn assign(&mut self, start: Start) {
        self.forget(&start.place);
        self.epochs += 1;
        self.numbers.insert(start.place.clone(), self.epochs);
        self.lanes.insert(self.epochs, Lane::new(start));
    }

    /// The partition is somebody else's: what is out of it means nothing any more.
    pub(super) fn forget(&mut self, place: &Place) {
        let Some(number) = self.numbers.remove(place) else { return };
        self.lanes.remove(&number);
        self.held.retain(|(_, lane, _), _| *lane != number);
        let gone: Vec<u64> =
            self.out.iter().filter(|(_, out)| out.0 == number).map(|(position, _)| *position).collect();
        for position in gone {
            self.out.remove(&position);
            self.void.insert(Token { epoch: number, position });
        }
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.numbers.keys().cloned().collect()
    }

    /// Hands out nothing more of it.
    pub(super) fn drain(&mut self, place: &Place) {
        let Some(number) = self.numbers.get(place).copied() else { return };
        self.held.retain(|(_, lane, _), _| *lane != number);
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.drain();
        }
    }

    /// Whether nothing of these is out.
    pub(super) fn drained(&self, places: &[Place]) -> bool {
        places.iter().filter_map(|place| self.lane(place)).all(|lane| lane.out == 0)
    }

    fn lane(&self, place: &Place) -> Option<&Lane> {
        self.lanes.get(self.numbers.get(place)?)
    }

    fn lane_mut(&mut self, place: &Place) -> Option<&mut Lane> {
        self.lanes.get_mut(self.numbers.get(place)?)
    }

    /// Takes in a record. Whether it may have been in flight when an earlier owner died is known here.
    pub(super) fn push(&mut self, place: &Place, offset: i64, mut parcel: Parcel) {
        if let Some(lane) = self.lane_mut(place) {
            parcel.delivery.suspect = offset < lane.start.suspect_until;
            lane.push(offset, parcel);
        }
    }

    /// Up to `max` within the window, a few from each partition in turn.
    pub(super) fn take(&mut self, max: usize, now: Duration) -> Vec<Delivery> {
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, lane, offset), parcel) = entry.remove_entry();
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.put_back(offset, parcel);
            }
        }
        let count = max.min(self.window.saturating_sub(self.out.len() + self.void.len()));
        let mut taken = Vec::with_capacity(count);
        let mut idle = 0;
        while taken.len() < count && idle < self.lanes.len() {
            let next = self.lanes.range(self.turn + 1..).next().or_else(|| self.lanes.iter().next()).map(|(n, _)| *n);
            let Some(number) = next else { break };
            self.turn = number;
            let before = taken.len();
            while taken.len() < count && taken.len() - before < TURN {
                let Some((offset, parcel)) = self.lanes.get_mut(&number).and_then(|lane| lane.pop(now)) else { break };
                taken.push(self.hand_out(number, offset, parcel));
            }
            idle = if taken.len() == before { idle + 1 } else { 0 };
        }
        taken
    }

    fn hand_out(&mut self, lane: u64, offset: i64, parcel: Arc<Parcel>) -> Delivery {
        self.positions += 1;
        let mut delivery = parcel.delivery.clone();
        delivery.token = Token { epoch: lane, position: self.positions };
        self.out.insert(self.positions, (lane, offset, parcel));
        delivery
    }

    /// When something that is held back may be handed out.
    pub(super) fn due(&self) -> Option<Duration> {
        let held = self.held.first_key_value().map(|((due, ..), _)| *due);
        self.lanes.values().filter_map(Lane::due).chain(held).min()
    }

    /// Settles; what is not known is ignored.
    ///
    /// A message that is requeued stays here and is handed out again after a pause: Kafka cannot take it back, and on an
    /// ordered endpoint it must come before its successors.
    pub(super) fn settle(&mut self, settlements: &[Settlement], due: Duration) {
        for Settlement { token, settle } in settlements {
            if self.out.get(&token.position).is_none_or(|(lane, ..)| *lane != token.epoch) {
                self.void.remove(token);
                continue;
            }
            let Some((number, offset, parcel)) = self.out.remove(&token.position) else { continue };
            let Some(lane) = self.lanes.get_mut(&number) else { continue };
            lane.out -= 1;
            match (settle, parcel.key().filter(|_| self.ordered)) {
                (Settle::Done | Settle::Committed, _) => lane.finish(offset),
                (Settle::Return, _) => lane.put_back(offset, parcel),
                (Settle::Requeue, Some(key)) => {
                    lane.block(key, due);
                    lane.put_back(offset, Arc::clone(&parcel));
                }
                (Settle::Requeue, None) if lane.draining => {}
                (Settle::Requeue, None) => {
                    self.held.insert((due, number, offset), parcel);
                }
            }
        }
    }

    /// Whether a partition waits for its limit to be written down.
    pub(super) fn urgent(&self) -> bool {
        !self.stopped && self.lanes.values().any(Lane::urgent)
    }

    /// What is to be written down.
    pub(super) fn notes(&mut self, last: bool, keep: bool) -> Vec<Commit> {
        let note = |(number, lane): (&u64, &mut Lane)| {
            Some(Commit { lane: *number, place: lane.start.place.clone(), note: lane.note(last, keep)? })
        };
        self.lanes.iter_mut().filter_map(note).collect()
    }

    pub(super) fn written(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(lane) = self.lanes.get_mut(&commit.lane) {
                lane.written(&commit.note);
            }
        }
    }

    pub(super) fn failed(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(lane) = self.lanes.get_mut(&commit.lane) {
                lane.failed();
            }
        }
    }

    /// What the store is to know, by the number of the assignment, now that the group has these bases.
    pub(super) fn raises(&mut self, bases: &[(u64, i64)]) -> Vec<(u64, Position)> {
        let raise = |(number, base): &(u64, i64)| Some((*number, self.lanes.get_mut(number)?.raise(*base)?));
        bases.iter().filter_map(raise).collect()
    }

    /// Whether it does. Answers how many positions are somebody else's.
    pub(super) fn raised(&mut self, what: &[(u64, i64)], done: &[bool]) -> usize {
        for ((number, base), done) in what.iter().zip(done) {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.raised(*base, *done);
            }
        }
        done.iter().filter(|done| !**done).count()
    }

    /// How many more records of a partition there is room for.
    pub(super) fn room(&mut self, place: &Place) -> usize {
        let most = self.most();
        self.lane_mut(place).map_or(0, |lane| lane.room(most))
    }

    /// Whether a partition for which there was no room has some again.
    pub(super) fn relieved(&self) -> bool {
        let most = self.most();
        self.lanes.values().any(|lane| lane.full && lane.is_low(most))
    }

    /// How many records of a partition may wait here: together as many as two windows. What is decoded long before its turn
    /// has left the processor's caches by then.
    fn most(&self) -> usize {
        (2 * self.window / self.lanes.len().max(1)).max(LEAST_AHEAD)
    }
}
