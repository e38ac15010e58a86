//! What the rows must say when every order is final.

use crate::{rows::Order, scenario::Scenario};
use std::collections::BTreeMap;

/// What is wrong with an order; nothing, if all is well.
pub(crate) fn order(id: u64, seed: u64, order: &Order) -> Vec<String> {
    let count = |entry| order.count(entry);
    let (reserved, released) = (count("reserved"), count("released"));
    let (captured, shipped) = (count("captured"), count("shipped"));
    let scenario = Scenario::of(seed, id);
    let good = match order.status.as_str() {
        "confirmed" => {
            (reserved, released, captured, shipped) == (1, 0, 1, 1)
                && matches!(scenario, Scenario::Good | Scenario::Late)
        }
        "cancelled" => {
            let reservations = if scenario == Scenario::Declined { 0 } else { 1 };
            (reserved, released, captured, shipped) == (reservations, reservations, 0, 0)
        }
        _ => false,
    };
    if good {
        return Vec::new();
    }
    vec![format!("order {id} ({scenario:?}) is {}, and its ledger says {:?}", order.status, order.entries)]
}

/// What is wrong with all of them, and that there are as many as there should be.
pub(crate) fn all(orders: &BTreeMap<u64, Order>, wanted: u64, seed: u64) -> Vec<String> {
    let missing = (1..=wanted).filter(|id| !orders.contains_key(id));
    let missing = missing.map(|id| format!("order {id} is not there"));
    missing.chain(orders.iter().flat_map(|(id, o)| order(*id, seed, o))).collect()
}
