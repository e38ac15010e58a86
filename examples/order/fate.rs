//! What the world does to an order: decided by its number and the seed, so that a run can be repeated, and so that
//! processes that share nothing but their arguments agree.

/// What happens to an order if nobody kills a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// Everything goes well.
    Good,
    /// The bank says no.
    Declined,
    /// The bank says yes, after the shop has stopped waiting.
    Late,
    /// Paid for, and not to be had.
    OutOfStock,
}

impl Fate {
    pub(crate) fn of(seed: u64, order: u64) -> Self {
        match mix(seed ^ mix(order)) % 10 {
            0..=5 => Fate::Good,
            6 => Fate::Declined,
            7 => Fate::Late,
            _ => Fate::OutOfStock,
        }
    }
}

/// What it costs, in cents.
pub(crate) fn amount(seed: u64, order: u64) -> i64 {
    // below 2^31, so the conversion cannot fail
    i64::try_from(1_000 + mix(order ^ mix(seed)) % 9_000).unwrap_or(1_000)
}

/// SplitMix64.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
