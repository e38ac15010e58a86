//! Seeded random numbers.

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A small generator of reproducible random numbers, for jitter, planned faults and tests; never for secrets.
///
/// The algorithm is SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same numbers on every machine.
///
/// ```
/// # use sagabus_core::SeededRandom;
/// let (mut one, mut other) = (SeededRandom::new(7), SeededRandom::new(7));
/// assert_eq!(one.next_u64(), other.next_u64());
/// assert!(one.below(10) < 10);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeededRandom {
    state: u64,
}

impl SeededRandom {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let number = number_at(self.state);
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        number
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        u64::try_from((u128::from(self.next_u64()) * u128::from(n)) >> 64).unwrap_or(0)
    }
}

/// The number that a generator in this state yields.
pub(crate) const fn number_at(state: u64) -> u64 {
    let mut z = state.wrapping_add(GOLDEN_GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Advances a state that several threads share and yields its number.
pub(crate) fn next_shared(state: &std::sync::atomic::AtomicU64) -> u64 {
    number_at(state.fetch_add(GOLDEN_GAMMA, std::sync::atomic::Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference implementation for seed 1234567.
    #[test]
    fn it_is_splitmix64() {
        let mut random = SeededRandom::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(random.below(0), 0);
    }
}
