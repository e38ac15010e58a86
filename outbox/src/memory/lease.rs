use super::{faults::Operation, handle::MemoryStore, model::Model};
use async_trait::async_trait;
use sagabus_core::{Fence, Lease, LeaseRequest, Leases, NodeId, Result, SHARDS, Timestamp};
use std::{collections::BTreeMap, time::Duration};

/// The members of a group, and who owns which shard.
#[derive(Default)]
pub(super) struct Group {
    members: BTreeMap<NodeId, Member>,
    shards: BTreeMap<u16, Shard>,
}

struct Member {
    expires: Timestamp,
    /// Since when its lease is unbroken.
    since: Timestamp,
    ttl: Duration,
    wants: bool,
}

#[derive(Default)]
struct Shard {
    owner: Option<NodeId>,
    epoch: i64,
}

impl Member {
    fn is_alive(&self, now: Timestamp) -> bool {
        self.expires > now
    }
}

impl Group {
    fn heartbeat(&mut self, request: &LeaseRequest, now: Timestamp) -> Lease {
        let node = request.node;
        let lapsed = self.members.get(&node).is_some_and(|member| !member.is_alive(now));
        let unbroken = self.members.get(&node).filter(|member| member.is_alive(now)).map(|member| member.since);
        let member = Member {
            expires: now.plus(request.ttl),
            since: unbroken.unwrap_or(now),
            ttl: request.ttl,
            wants: request.shards,
        };
        self.members.insert(node, member);
        for shard in &request.release {
            if let Some(shard) = self.shards.get_mut(shard).filter(|shard| shard.owner == Some(node)) {
                shard.owner = None;
            }
        }
        let share = self.share(node, now);
        let inherited = self.take(node, share, now);
        let shards: Vec<(u16, i64)> = self
            .shards
            .iter()
            .filter(|(_, shard)| shard.owner == Some(node))
            .map(|(number, shard)| (*number, shard.epoch))
            .collect();
        Lease {
            surplus: shards.iter().skip(share).map(|(number, _)| *number).collect(),
            shards,
            inherited,
            members: self.members.values().filter(|member| member.is_alive(now)).count(),
            lapsed,
        }
    }

    /// How many shards a node should have: the shares differ by one at most and add up to all.
    fn share(&self, node: NodeId, now: Timestamp) -> usize {
        let takers: Vec<NodeId> =
            self.members.iter().filter(|(_, m)| m.wants && m.is_alive(now)).map(|(node, _)| *node).collect();
        let Some(rank) = takers.iter().position(|taker| *taker == node) else { return 0 };
        let all = usize::from(SHARDS);
        all / takers.len() + usize::from(rank < all % takers.len())
    }

    /// Takes free shards up to the share; returns those whose owner did not leave cleanly.
    fn take(&mut self, node: NodeId, share: usize, now: Timestamp) -> Vec<u16> {
        let mut inherited = Vec::new();
        let mut have = self.shards.values().filter(|shard| shard.owner == Some(node)).count();
        for number in 0..SHARDS {
            let owner = self.shards.get(&number).and_then(|shard| shard.owner);
            let free = match owner {
                None => true,
                Some(owner) => owner != node && self.may_inherit(node, owner, now),
            };
            if have >= share || !free {
                continue;
            }
            let shard = self.shards.entry(number).or_default();
            shard.owner = Some(node);
            shard.epoch += 1;
            have += 1;
            if owner.is_some() {
                inherited.push(number);
            }
        }
        inherited
    }

    /// Whether `node` may take what belongs to `owner`: that one left, or its lease has lapsed and this node's own lease
    /// was unbroken for a whole ttl (else a stall of the database would make everyone look dead to the first one back).
    fn may_inherit(&self, node: NodeId, owner: NodeId, now: Timestamp) -> bool {
        let Some(member) = self.members.get(&owner) else { return true };
        let steady = |m: &Member| m.is_alive(now) && m.since.plus(m.ttl) <= now;
        !member.is_alive(now) && self.members.get(&node).is_some_and(steady)
    }

    fn leave(&mut self, node: NodeId) {
        self.members.remove(&node);
        for shard in self.shards.values_mut().filter(|shard| shard.owner == Some(node)) {
            shard.owner = None;
        }
    }

    /// Drops members that are long gone and own nothing.
    pub(super) fn forget(&mut self, now: Timestamp, horizon: Duration) {
        let shards = &self.shards;
        self.members.retain(|node, member| {
            member.expires.plus(horizon) > now || shards.values().any(|shard| shard.owner == Some(*node))
        });
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }
}

impl Model {
    pub(super) fn holds(&self, fence: &Fence) -> bool {
        let shard = self.groups.get(&*fence.group).and_then(|group| group.shards.get(&fence.shard));
        shard.is_some_and(|shard| shard.epoch == fence.epoch)
    }

    /// Whether a node may take over what another one of its group has left.
    pub(super) fn may_inherit(&self, group: &str, node: NodeId, owner: NodeId, now: Timestamp) -> bool {
        self.groups.get(group).is_none_or(|group| group.may_inherit(node, owner, now))
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        self.run(Operation::Lease, |model, now| {
            model.groups.entry(request.group.clone()).or_default().heartbeat(request, now)
        })
        .await
    }

    async fn leave(&self, group: &str, node: NodeId) -> Result<()> {
        self.run(Operation::Lease, |model, _| {
            if let Some(group) = model.groups.get_mut(group) {
                group.leave(node);
            }
        })
        .await
    }
}
