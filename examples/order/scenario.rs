//! What the services do with an order: scripted by its number and the seed, so that a run can be repeated, and so that
//! processes that share nothing but their arguments agree.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What happens to an order if no process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// Everything goes well.
    Good,
    /// The bank says no.
    Declined,
    /// The bank says yes, after the shop has stopped waiting.
    Late,
    /// Paid for, and out of stock.
    OutOfStock,
}

impl Scenario {
    pub(crate) fn of(seed: u64, order: u64) -> Self {
        match draw("scenario", seed, order) % 10 {
            0..=5 => Scenario::Good,
            6 => Scenario::Declined,
            7 => Scenario::Late,
            _ => Scenario::OutOfStock,
        }
    }
}

/// The price of an order, in cents.
pub(crate) fn amount(seed: u64, order: u64) -> i64 {
    // below 2^31, so the conversion cannot fail
    i64::try_from(1_000 + draw("amount", seed, order) % 9_000).unwrap_or(1_000)
}

/// A number that depends on its arguments only.
fn draw(of: &str, seed: u64, order: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (of, seed, order).hash(&mut hasher);
    hasher.finish()
}
