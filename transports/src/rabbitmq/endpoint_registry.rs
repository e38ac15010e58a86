//! Which endpoints there are and what they get, kept on the broker itself, since AMQP can list neither.
//!
//! With it, whoever finds bindings missing makes them again for everyone, also for endpoints none of whose processes runs.

use super::names::{Names, word};
use sagabus_core::{SHARDS, Topology};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A binding: queue, exchange, routing key.
pub(super) type Binding = (String, String, String);

/// What an endpoint gets, and how its queues are divided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    subscriptions: BTreeSet<String>,
    /// 0: not ordered.
    #[serde(default)]
    partitions: u16,
}

impl Subscriptions {
    pub(super) fn of(topology: &Topology, partitions: u16) -> Self {
        Self {
            subscriptions: topology.subscriptions.iter().cloned().collect(),
            partitions: if topology.ordered { partitions.clamp(1, SHARDS) } else { 0 },
        }
    }

    /// Takes over what an entry has subscribed to and this one has not. Answers what that is.
    pub(super) fn adopt(&mut self, entry: &EndpointEntry) -> Vec<String> {
        let stale: Vec<String> = entry.current.subscriptions.difference(&self.subscriptions).cloned().collect();
        self.subscriptions.extend(stale.iter().cloned());
        stale
    }

    /// Unordered: everything into the one queue. Ordered: what has a key into the partition of its shard.
    pub(super) fn bindings(&self, names: &Names, queue: &str) -> BTreeSet<Binding> {
        let (own, events, keyed) = (names.queue(queue), names.events_bound(), names.keyed_bound());
        let mut wanted = BTreeSet::new();
        for topic in &self.subscriptions {
            wanted.insert((own.clone(), events.clone(), topic.clone()));
        }
        let sources = self.subscriptions.iter().map(|t| format!("t.{t}")).chain([format!("q.{queue}")]);
        for source in sources {
            if self.partitions == 0 {
                wanted.insert((own.clone(), keyed.clone(), format!("{source}.*")));
                continue;
            }
            for shard in 0..SHARDS {
                let partition = names.partition(queue, shard % self.partitions);
                wanted.insert((partition, keyed.clone(), format!("{source}.{}", word(shard))));
            }
        }
        wanted
    }
}

/// An endpoint: what it is to have, and what it may still have from before.
///
/// What is to be unbound is written down before anything is bound, and struck out after it was unbound; so a crash in
/// between leaves work to do, and the next one does it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointEntry {
    current: Subscriptions,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<Subscriptions>,
}

impl EndpointEntry {
    pub(super) fn bindings(&self, names: &Names, queue: &str) -> BTreeSet<Binding> {
        self.current.bindings(names, queue)
    }

    /// What an earlier shape had bound and this one does not want.
    pub(super) fn stale(&self, names: &Names, queue: &str) -> BTreeSet<Binding> {
        let wanted = self.bindings(names, queue);
        self.former
            .iter()
            .flat_map(|subscriptions| subscriptions.bindings(names, queue))
            .filter(|b| !wanted.contains(b))
            .collect()
    }

    fn replace(&mut self, subscriptions: Subscriptions) {
        if self.current != subscriptions {
            self.former.push(std::mem::replace(&mut self.current, subscriptions));
        }
    }
}

/// The endpoints of this prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointRegistry {
    /// Whether everyone was bound after the exchanges were made. Otherwise that was interrupted.
    pub(super) bound: bool,
    endpoints: BTreeMap<String, EndpointEntry>,
}

impl EndpointRegistry {
    /// Takes in another list; where they differ, the other one is right.
    pub(super) fn merge(&mut self, other: Self) {
        self.bound = other.bound;
        for (queue, entry) in other.endpoints {
            let ours = self.endpoints.entry(queue).or_insert_with(|| entry.clone());
            ours.replace(entry.current);
            for subscriptions in entry.former {
                if !ours.former.contains(&subscriptions) {
                    ours.former.push(subscriptions);
                }
            }
        }
    }

    /// From now on the endpoint has this shape.
    pub(super) fn set(&mut self, queue: &str, subscriptions: Subscriptions) {
        self.endpoints
            .entry(queue.to_string())
            .or_insert_with(|| EndpointEntry { current: subscriptions.clone(), former: Vec::new() })
            .replace(subscriptions);
    }

    /// What was stale is unbound.
    pub(super) fn forget_former(&mut self, queue: &str) {
        if let Some(entry) = self.endpoints.get_mut(queue) {
            entry.former.clear();
        }
    }

    pub(super) fn get(&self, queue: &str) -> Option<&EndpointEntry> {
        self.endpoints.get(queue)
    }

    pub(super) fn remove(&mut self, queue: &str) -> Option<EndpointEntry> {
        self.endpoints.remove(queue)
    }

    pub(super) fn queues(&self) -> Vec<String> {
        self.endpoints.keys().cloned().collect()
    }

    pub(super) fn has(&self, queue: &str) -> bool {
        self.endpoints.contains_key(queue)
    }

    pub(super) fn subscribed(&self, topic: &str) -> bool {
        self.endpoints.values().any(|entry| entry.current.subscriptions.contains(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions(topics: &[&str], ordered: bool) -> Subscriptions {
        let subscriptions = topics.iter().map(|t| t.to_string()).collect();
        Subscriptions::of(&Topology { subscriptions, ordered, ..Topology::default() }, 4)
    }

    #[test]
    fn what_was_bound_before_is_known_until_it_is_unbound() {
        let names = Names { prefix: String::new() };
        let mut list = EndpointRegistry::default();
        list.set("q", subscriptions(&["a", "b"], false));
        assert!(list.endpoints["q"].stale(&names, "q").is_empty());
        list.set("q", subscriptions(&["b", "c"], false));
        // a crash here: it is read again, and another change comes
        let mut list: EndpointRegistry = serde_json::from_slice(&serde_json::to_vec(&list).unwrap()).unwrap();
        list.set("q", subscriptions(&["b"], false));
        let keys: Vec<String> = list.endpoints["q"].stale(&names, "q").into_iter().map(|(_, _, key)| key).collect();
        assert_eq!(keys, ["a", "c", "t.a.*", "t.c.*"]);
        list.forget_former("q");
        assert!(list.endpoints["q"].stale(&names, "q").is_empty() && list.subscribed("b") && !list.subscribed("c"));
    }

    #[test]
    fn other_numbers_of_partitions_leave_nothing_behind() {
        let names = Names { prefix: String::new() };
        let mut list = EndpointRegistry::default();
        list.set("q", subscriptions(&[], true));
        assert_eq!(list.endpoints["q"].bindings(&names, "q").len(), usize::from(SHARDS));
        list.set("q", subscriptions(&[], false));
        assert_eq!(list.endpoints["q"].stale(&names, "q").len(), usize::from(SHARDS));
        assert_eq!(list.endpoints["q"].bindings(&names, "q").len(), 1);
    }

    #[test]
    fn two_lists_are_merged() {
        let mut one = EndpointRegistry::default();
        one.set("a", subscriptions(&["x"], false));
        one.set("b", subscriptions(&["x"], false));
        let mut two = EndpointRegistry::default();
        two.set("b", subscriptions(&["y"], false));
        one.merge(two);
        assert!(one.has("a") && one.has("b") && one.subscribed("y"));
        assert_eq!(one.endpoints["b"].former, [subscriptions(&["x"], false)]);
    }
}
