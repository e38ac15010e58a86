use std::{collections::HashMap, hash::Hash};

/// Numbers for what each store calls by names of its own: in the order in which they are first seen, which is the same
/// for all stores as long as their answers are.
pub(super) struct Names<K> {
    numbers: HashMap<K, usize>,
    known: Vec<K>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), known: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash> Names<K> {
    /// Its number, and whether that is a new one.
    pub(super) fn number(&mut self, name: &K) -> (usize, bool) {
        if let Some(number) = self.numbers.get(name) {
            return (*number, false);
        }
        let number = self.known.len();
        self.numbers.insert(name.clone(), number);
        self.known.push(name.clone());
        (number, true)
    }

    /// What has this number.
    ///
    /// # Panics
    /// If nothing has: operations only name what was seen.
    pub(super) fn name(&self, number: usize) -> K {
        self.known[number].clone()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
