//! What goes in, what is kept and what comes out: the same for the engine and the baseline.

use serde::{Deserialize, Serialize};

/// Bytes of an encoded message.
pub(crate) const MESSAGE: usize = 500;
/// Bytes of an encoded state.
pub(crate) const STATE: usize = 360;

/// An input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    /// The saga that it is for.
    pub(crate) key: u64,
    /// Unique in a run.
    pub(crate) seq: u64,
    /// When the generator meant to send it, in microseconds on its clock; 0 without a generator.
    pub(crate) at: u64,
    /// Fills it up.
    pub(crate) note: String,
}

/// What one input brings about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    /// The saga that sent it.
    pub(crate) key: u64,
    /// Of its input.
    pub(crate) seq: u64,
    /// Of its input.
    pub(crate) at: u64,
    /// What the saga had counted by then.
    pub(crate) count: u64,
    /// Fills it up.
    pub(crate) note: String,
}

/// A saga's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// Inputs handled.
    pub(crate) count: u64,
    /// The sum of their numbers, so that a lost and a doubled one do not cancel out.
    pub(crate) total: u64,
    /// Fills it up.
    pub(crate) note: String,
}

impl Input {
    pub(crate) fn new(key: u64, seq: u64, at: u64) -> Self {
        let mut input = Self { key, seq, at, note: String::new() };
        input.note = filler(&input, MESSAGE);
        input
    }
}

impl Counter {
    /// What both handlers do.
    pub(crate) fn handle(&mut self, input: &Input) -> Output {
        self.count += 1;
        self.total += input.seq;
        if self.note.is_empty() {
            self.note = filler(self, STATE);
        }
        let mut output =
            Output { key: input.key, seq: input.seq, at: input.at, count: self.count, note: String::new() };
        output.note = filler(&output, MESSAGE);
        output
    }
}

/// As much text as a value lacks to its size.
fn filler<T: Serialize>(value: &T, size: usize) -> String {
    let now = serde_json::to_vec(value).map_or(0, |json| json.len());
    "x".repeat(size.saturating_sub(now))
}

/// The key of an input: spread over all keys, in no order that a cache would like.
pub(crate) fn key_of(seq: u64, keys: u64) -> u64 {
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) % keys.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_states_have_their_sizes() {
        let input = Input::new(9_999, 123_456, 0);
        assert_eq!(serde_json::to_vec(&input).unwrap().len(), MESSAGE);
        let mut counter = Counter::default();
        let output = counter.handle(&input);
        assert_eq!(serde_json::to_vec(&output).unwrap().len(), MESSAGE);
        assert!(serde_json::to_vec(&counter).unwrap().len().abs_diff(STATE) < 8);
    }
}
