//! The cache of saga states: sagas that are idle, so that their next message need not load them.
//!
//! A cached state is a guess: it holds while this node is the only one of its endpoint, and nobody edits the table.
//! So it is only ever built upon, never believed: a unit that is built on it compares instance and version in its commit,
//! and whatever else would follow from it (a failure, a message that is dropped, parked or dead-lettered) is decided again on a
//! state that was loaded. With other nodes about, nothing is cached.

use super::keys::LaneKey;
use foldhash::HashMap;
use sagabus_core::SagaRow;

/// Most rows of a generation, and most bytes.
const MAX_ROWS_PER_GENERATION: usize = 16_384;
const MAX_BYTES_PER_GENERATION: usize = 8 << 20;

/// Two generations: what was not asked for while the younger one filled up is forgotten.
#[derive(Default)]
pub(super) struct SagaCache {
    young: HashMap<LaneKey, SagaRow>,
    old: HashMap<LaneKey, SagaRow>,
    bytes: usize,
}

impl SagaCache {
    pub(super) fn put(&mut self, key: LaneKey, mut row: SagaRow) {
        self.old.remove(&key);
        // what was loaded may be a piece of something much larger, which would live as long
        row.state = bytes::Bytes::copy_from_slice(&row.state);
        row.origin = row.origin.map(|origin| bytes::Bytes::copy_from_slice(&origin));
        self.bytes += row.state.len() + row.origin.as_ref().map_or(0, bytes::Bytes::len) + row.key.len();
        self.young.insert(key, row);
        if self.young.len() >= MAX_ROWS_PER_GENERATION || self.bytes >= MAX_BYTES_PER_GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }

    pub(super) fn take(&mut self, key: &LaneKey) -> Option<SagaRow> {
        // its bytes stay counted: that only makes a generation shorter
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(super) fn contains(&self, key: &LaneKey) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
