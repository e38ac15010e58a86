use sagabus_core::SeededRandom;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `Store::load`.
    Load,
    /// `Store::commit`.
    Commit,
    /// `Store::begin`.
    Begin,
    /// `Transaction::finish`.
    Finish,
    /// `Store::enlist`.
    Enlist,
    /// `Store::due`.
    Due,
    /// `Store::outbox_*`.
    Outbox,
    /// `Store::count_attempt`.
    Count,
    /// `Store::now`, `migrate`, `check`, `prune`.
    Other,
    /// `Queues::enqueue`.
    Enqueue,
    /// `Queues::read` and `depth`.
    Read,
    /// `Queues::delete`.
    Delete,
    /// `Queues::declare` and `subscribe`.
    Declare,
    /// `Leases`.
    Lease,
    /// `OffsetStore`.
    Position,
    /// `StoreAdmin`.
    Admin,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the error is transient.
    Before,
    /// Everything is done, and the answer is lost; the error is unknown.
    After,
}

/// How often calls fail, in thousandths, and how long they take at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// Thousandths of calls that fail before they do anything.
    pub before: u32,
    /// Thousandths of calls whose answer is lost.
    pub after: u32,
    /// Thousandths of calls that take time.
    pub slow: u32,
    /// How long those take at most.
    pub latency: Duration,
}

/// The faults of a store handle: drawn by a seed, scripted, or both. Clones share the script and its counters.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults(Arc<Mutex<FaultScript>>);

#[derive(Debug, Default)]
struct FaultScript {
    random: SeededRandom,
    rates: BTreeMap<Option<Operation>, FaultRates>,
    scripted_faults: BTreeMap<(Option<Operation>, u64), Fault>,
    calls: BTreeMap<Option<Operation>, u64>,
    hits: u64,
}

pub(super) struct Decision {
    pub(super) fault: Option<Fault>,
    pub(super) latency: Option<Duration>,
}

impl StoreFaults {
    /// Nothing goes wrong until something is added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every operation fails at these rates; the same seed and the same calls give the same faults.
    pub fn seeded(seed: u64, rates: FaultRates) -> Self {
        let faults = Self::default();
        faults.with_script(|script| {
            script.random = SeededRandom::new(seed);
            script.rates.insert(None, rates);
        });
        faults
    }

    /// This operation has rates of its own.
    #[must_use]
    pub fn rate(self, operation: Operation, rates: FaultRates) -> Self {
        self.with_script(|script| script.rates.insert(Some(operation), rates));
        self
    }

    /// The nth call (from 1) of this operation fails.
    #[must_use]
    pub fn at(self, operation: Operation, nth: u64, fault: Fault) -> Self {
        self.with_script(|script| script.scripted_faults.insert((Some(operation), nth), fault));
        self
    }

    /// The nth call (from 1), whatever it is, fails.
    #[must_use]
    pub fn at_call(self, nth: u64, fault: Fault) -> Self {
        self.with_script(|script| script.scripted_faults.insert((None, nth), fault));
        self
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&self) {
        self.with_script(|script| {
            script.rates.clear();
            script.scripted_faults.clear();
        });
    }

    /// How many calls there were: of one operation, or all.
    pub fn calls(&self, operation: Option<Operation>) -> u64 {
        self.with_script(|script| script.calls.get(&operation).copied().unwrap_or(0))
    }

    /// How many of them were made to fail. A test in which this is 0 has shown nothing.
    pub fn hits(&self) -> u64 {
        self.with_script(|script| script.hits)
    }

    fn with_script<T>(&self, work: impl FnOnce(&mut FaultScript) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn decide(&self, operation: Operation) -> Decision {
        self.with_script(|script| script.decide(operation))
    }
}

impl FaultScript {
    fn decide(&mut self, operation: Operation) -> Decision {
        let mut scripted = None;
        for which in [Some(operation), None] {
            let count = self.calls.entry(which).or_default();
            *count += 1;
            scripted = scripted.or(self.scripted_faults.get(&(which, *count)).copied());
        }
        let rates = self.rates.get(&Some(operation)).or_else(|| self.rates.get(&None));
        let rates = rates.copied().unwrap_or_default();
        let (dice, slow, length) = (self.draw(1000), self.draw(1000), self.draw(1 << 20));
        let by_rate = if dice < u64::from(rates.before) {
            Some(Fault::Before)
        } else if dice < u64::from(rates.before) + u64::from(rates.after) {
            Some(Fault::After)
        } else {
            None
        };
        let fault = scripted.or(by_rate);
        self.hits += u64::from(fault.is_some());
        let share = u32::try_from(length).unwrap_or(0);
        let latency =
            (slow < u64::from(rates.slow)).then(|| rates.latency.mul_f64(f64::from(share) / f64::from(1 << 20)));
        Decision { fault, latency }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_a_script_hits_once() {
        let rates = FaultRates { before: 100, after: 100, slow: 500, latency: Duration::from_millis(10) };
        let run = |seed| {
            let faults = StoreFaults::seeded(seed, rates);
            let list: Vec<_> =
                (0..200).map(|_| faults.decide(Operation::Commit)).map(|d| (d.fault, d.latency)).collect();
            (list, faults.hits())
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).0, run(2).0);
        assert!(run(1).1 > 10);

        let faults = StoreFaults::new().at(Operation::Commit, 2, Fault::After).at_call(4, Fault::Before);
        let seen: Vec<_> = [Operation::Load, Operation::Commit, Operation::Commit, Operation::Due]
            .map(|operation| faults.decide(operation).fault)
            .into();
        assert_eq!(seen, [None, None, Some(Fault::After), Some(Fault::Before)]);
        assert_eq!((faults.calls(None), faults.calls(Some(Operation::Commit))), (4, 2));
    }
}
