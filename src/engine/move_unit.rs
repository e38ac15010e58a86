//! The one move of a unit from a place to another.
//!
//! A unit is in exactly one place, and only [`Engine::move_unit`] takes it from one to another: it keeps the lists and the
//! lanes in step with the unit's [`Location`]. So a unit cannot get lost between two lists.

use super::{
    Engine,
    keys::UnitId,
    location::{LanePart, Location},
    scheduler::{Ready, Scheduler},
    unit::Unit,
};
use std::collections::VecDeque;

impl Engine {
    /// Moves a unit. The lane that it leaves or enters is not woken; the caller does that when the lane's state is right.
    pub(super) fn move_unit(&mut self, id: UnitId, to: Location) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let from = std::mem::replace(&mut unit.location, to);
        debug_assert!(from.leads_to(to), "unit {id} goes from {from:?} to {to:?}");
        self.scheduler.change_lane_part(id, unit, from, to);
        self.leave_list(id, from);
        match to {
            Location::Following(first) => {
                if let Some(first) = self.units.get_mut(&first) {
                    first.guard.followers.push(id);
                }
            }
            Location::SuspectQueue => self.suspects.queue.push_back(id),
            Location::WaitingForLoad => self.loader.waiting.push_back(id),
            Location::Ready => self.scheduler.ready.push_back(Ready::Plain(id)),
            Location::Running => self.scheduler.running += 1,
            Location::StalledByStore => self.store_health.stalled.push_back(id),
            Location::CommitQueue(at) => self.committers[at].queue.push_back(id),
            Location::Admitted
            | Location::Loading
            | Location::InLane
            | Location::CountingSuspect
            | Location::CountingFailure
            | Location::RetryPause
            | Location::Committing => {}
        }
    }

    /// Takes a unit out of the engine.
    pub(super) fn remove_unit(&mut self, id: UnitId) -> Option<Box<Unit>> {
        let unit = self.units.remove(&id)?;
        self.scheduler.change_lane_part(id, &unit, unit.location, Location::Admitted);
        self.leave_list(id, unit.location);
        Some(unit)
    }

    /// Removes a unit from the list of its place, if that has one.
    fn leave_list(&mut self, id: UnitId, from: Location) {
        match from {
            Location::Following(first) => {
                if let Some(first) = self.units.get_mut(&first) {
                    first.guard.followers.retain(|other| *other != id);
                }
            }
            Location::SuspectQueue => take_out(&mut self.suspects.queue, |other| *other == id),
            Location::WaitingForLoad => take_out(&mut self.loader.waiting, |other| *other == id),
            Location::Ready => {
                take_out(&mut self.scheduler.ready, |other| matches!(other, Ready::Plain(other) if *other == id));
            }
            Location::Running => self.scheduler.running -= 1,
            Location::StalledByStore => take_out(&mut self.store_health.stalled, |other| *other == id),
            Location::CommitQueue(at) => take_out(&mut self.committers[at].queue, |other| *other == id),
            Location::Admitted
            | Location::Loading
            | Location::InLane
            | Location::CountingSuspect
            | Location::CountingFailure
            | Location::RetryPause
            | Location::Committing => {}
        }
    }
}

impl Scheduler {
    /// Takes a unit from one part of its lane to another, or out of it.
    fn change_lane_part(&mut self, id: UnitId, unit: &Unit, from: Location, to: Location) {
        let leads_lane = unit.leads_lane();
        let (left, entered) = (from.lane_part(leads_lane), to.lane_part(leads_lane));
        if left != entered
            && let Some(key) = &unit.saga.lane
            && let Some(lane) = self.lanes.get_mut(key)
        {
            match left {
                LanePart::None => {}
                LanePart::Waiting => take_out(&mut lane.waiting, |other| *other == id),
                LanePart::Running => lane.running = None,
                LanePart::Pending => take_out(&mut lane.pending, |other| *other == id),
            }
            match entered {
                LanePart::None => {}
                LanePart::Waiting => lane.enqueue(id),
                LanePart::Running => lane.running = Some(id),
                LanePart::Pending => lane.pending.push_back(id),
            }
        }
    }
}

#[cfg(all(debug_assertions, feature = "testing"))]
impl Engine {
    /// Checks that each unit is in exactly one place, and that each lane with waiting units will be woken.
    pub(super) fn check_locations(&self) {
        let mut listed = foldhash::HashMap::default();
        let mut list = |id: UnitId, at: Location| {
            let other = listed.insert(id, at);
            assert!(other.is_none(), "unit {id} is listed as {other:?} and {at:?}");
        };
        self.suspects.queue.iter().for_each(|id| list(*id, Location::SuspectQueue));
        self.loader.waiting.iter().for_each(|id| list(*id, Location::WaitingForLoad));
        self.loader.loading(|id| self.units.contains_key(&id)).for_each(|id| list(id, Location::Loading));
        self.store_health.stalled.iter().for_each(|id| list(*id, Location::StalledByStore));
        for ready in &self.scheduler.ready {
            match ready {
                Ready::Plain(id) => list(*id, Location::Ready),
                Ready::Lane(key) => assert!(self.scheduler.lanes[key].ready, "{key:?} is listed and not ready"),
            }
        }
        for (at, committer) in self.committers.iter().enumerate() {
            committer.queue.iter().for_each(|id| list(*id, Location::CommitQueue(at)));
        }
        for (key, lane) in &self.scheduler.lanes {
            lane.waiting.iter().for_each(|id| list(*id, Location::InLane));
            let woken = lane.ready || lane.loading || lane.running.is_some() || !lane.pending.is_empty();
            assert!(woken || lane.waiting.is_empty(), "nothing wakes {key:?}");
            assert!(lane.running.iter().all(|id| self.in_lane(*id, key, LanePart::Running)), "{key:?} is held");
            assert!(lane.pending.iter().all(|id| self.in_lane(*id, key, LanePart::Pending)), "{key:?} is pending");
        }
        let mut running = 0;
        for (id, unit) in &self.units {
            for follower in &unit.guard.followers {
                list(*follower, Location::Following(*id));
            }
            running += usize::from(unit.location == Location::Running);
        }
        for (id, unit) in &self.units {
            let held_by_a_task = matches!(
                unit.location,
                Location::CountingSuspect
                    | Location::Running
                    | Location::CountingFailure
                    | Location::RetryPause
                    | Location::Committing
            );
            let expected = (!held_by_a_task).then_some(unit.location);
            assert_eq!(listed.remove(id), expected, "unit {id} is at {:?}", unit.location);
        }
        assert!(listed.is_empty(), "listed, and gone: {listed:?}");
        assert_eq!(self.scheduler.running, running, "running handlers");
        let paused = self.store_health.paused;
        assert!(paused || self.store_health.stalled.is_empty(), "nothing wakes the units that are stalled");
        let loads = paused || self.loader.is_busy();
        assert!(loads || self.loader.waiting.is_empty(), "nothing loads for the units that wait");
        assert!(loads || self.suspects.current.is_some() || self.suspects.queue.is_empty(), "no suspect is next");
    }

    fn in_lane(&self, id: UnitId, key: &super::keys::LaneKey, part: LanePart) -> bool {
        self.units.get(&id).is_some_and(|unit| {
            unit.saga.lane.as_ref() == Some(key) && unit.location.lane_part(unit.leads_lane()) == part
        })
    }
}

/// Removes the one entry; mostly it is the first.
fn take_out<T>(list: &mut VecDeque<T>, is: impl Fn(&T) -> bool) {
    if let Some(at) = list.iter().position(is) {
        list.remove(at);
    }
}
