use sagabus_core::{Outgoing, Owner};
use std::{collections::BTreeMap, sync::Arc};

/// The memory store's stand-in for a database connection: the application's own rows, inside a transaction.
///
/// Changes are seen by this transaction only, until [`Transaction::finish`](sagabus_core::Transaction::finish) has
/// applied its unit.
pub struct ScratchRows {
    base: Arc<BTreeMap<String, Vec<u8>>>,
    changes: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) enlisted: Vec<(Owner, bool, Vec<Outgoing>)>,
}

impl std::fmt::Debug for ScratchRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScratchRows")
            .field("rows", &self.base.len())
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl ScratchRows {
    pub(super) fn new(base: Arc<BTreeMap<String, Vec<u8>>>) -> Self {
        Self { base, changes: BTreeMap::new(), enlisted: Vec::new() }
    }

    /// Reads a row.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        match self.changes.get(key) {
            Some(change) => change.as_deref(),
            None => self.base.get(key).map(Vec::as_slice),
        }
    }

    /// Writes a row.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &str) {
        self.changes.insert(key.to_string(), None);
    }

    /// All rows whose keys begin so, in order.
    pub fn scan(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let mut rows = (*self.base).clone();
        for (key, change) in &self.changes {
            match change {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        rows.retain(|key, _| key.starts_with(prefix));
        rows
    }

    pub(super) fn apply(self, rows: &mut Arc<BTreeMap<String, Vec<u8>>>) {
        drop(self.base);
        let rows = Arc::make_mut(rows);
        for (key, change) in self.changes {
            match change {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
}
