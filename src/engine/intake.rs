//! The books of what has been taken in: deliveries, gates and order keys in flight.

use super::keys::{GateKey, UnitId};
use foldhash::HashMap;
use sagabus_core::{Delivery, RowGate, Token};
use std::{
    collections::{VecDeque, hash_map::Entry},
    time::Duration,
};

/// Deliveries and gates in flight.
#[derive(Default)]
pub(super) struct Intake {
    last_id: UnitId,
    pub(super) deliveries: HashMap<u64, InFlight>,
    gates: HashMap<GateKey, UnitId>,
    /// Ordered endpoints: deliveries that wait for the one before them of their key.
    orders: HashMap<String, VecDeque<Delivery>>,
    pub(super) without_id: WithoutIdWarning,
}

/// Where a delivery came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeliverySource {
    Transport(Token),
    Due(RowGate),
}

/// A delivery whose units are not all through.
pub(super) struct InFlight {
    pub(super) source: DeliverySource,
    pub(super) remaining: usize,
    /// Its queue row is the gate of its one unit: the commit removes it.
    pub(super) row_is_gate: bool,
    /// A unit of it was handed back.
    pub(super) returned: bool,
    pub(super) order_key: Option<String>,
}

/// The warning about messages without an id: at most one a minute, with their number.
#[derive(Default)]
pub(super) struct WithoutIdWarning {
    unreported: u64,
    next: Duration,
}

/// The pause between two warnings about messages without an id.
const WITHOUT_ID_WARNING_INTERVAL: Duration = Duration::from_secs(60);

impl WithoutIdWarning {
    /// Counts a message; the number to report now, if one is due.
    pub(super) fn count(&mut self, now: Duration) -> Option<u64> {
        self.unreported += 1;
        if now < self.next {
            return None;
        }
        self.next = now + WITHOUT_ID_WARNING_INTERVAL;
        Some(std::mem::take(&mut self.unreported))
    }
}

impl Intake {
    /// An id for a unit or a delivery.
    pub(super) fn next_id(&mut self) -> UnitId {
        self.last_id += 1;
        self.last_id
    }

    /// The last id that was given out.
    pub(super) fn last_id(&self) -> UnitId {
        self.last_id
    }

    /// Gives a gate to a unit, or names the unit in flight that has it.
    pub(super) fn take_gate(&mut self, key: GateKey, unit: UnitId) -> Result<(), UnitId> {
        match self.gates.entry(key) {
            Entry::Occupied(first) => Err(*first.get()),
            Entry::Vacant(free) => {
                free.insert(unit);
                Ok(())
            }
        }
    }

    pub(super) fn release_gate(&mut self, key: &GateKey) {
        self.gates.remove(key);
    }

    /// The delivery if none of its order key is in flight; otherwise it is kept.
    pub(super) fn admit_in_order(&mut self, key: String, delivery: Delivery) -> Option<Delivery> {
        match self.orders.entry(key) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(delivery);
                None
            }
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(delivery)
            }
        }
    }

    /// The next delivery of an order key, when the one before it is through.
    pub(super) fn next_in_order(&mut self, key: &str) -> Option<Delivery> {
        let next = self.orders.get_mut(key)?.pop_front();
        if next.is_none() {
            self.orders.remove(key);
        }
        next
    }

    /// All deliveries that wait for the one before them.
    pub(super) fn drain_orders(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.orders).into_values().flatten().collect()
    }

    pub(super) fn remove_order(&mut self, key: &str) {
        self.orders.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_without_an_id_are_reported_once_a_minute_with_their_number() {
        let mut warning = WithoutIdWarning::default();
        let seconds = [0, 1, 59, 60, 61, 130].map(|at| warning.count(Duration::from_secs(at)));
        assert_eq!(seconds, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
