//! Membership of a group and ownership of its shards, for both SQL stores: a pure function of the stored rows, a request
//! and the database's clock.

use sagabus_core::{Lease, LeaseRequest, NodeId, SHARDS, Timestamp};
use std::collections::BTreeMap;

/// A member as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Whether it takes shards.
    pub(crate) wants: bool,
    pub(crate) unbroken_since: Timestamp,
    pub(crate) lease_until: Timestamp,
}

/// A shard as stored. One that has no row is free and was never owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) owner: Option<NodeId>,
    pub(crate) epoch: i64,
    /// False while it is free and its last owner did not give it up itself.
    pub(crate) clean: bool,
}

/// The rows of a group, at a moment of the database's clock.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) now: Timestamp,
    pub(crate) members: BTreeMap<NodeId, Member>,
    shards: Vec<Shard>,
}

impl Group {
    /// A group without members.
    pub(crate) fn new(now: Timestamp) -> Self {
        let free = Shard { owner: None, epoch: 0, clean: true };
        Self { now, members: BTreeMap::new(), shards: vec![free; usize::from(SHARDS)] }
    }

    /// Adds a stored shard. Unknown numbers are ignored.
    pub(crate) fn add_shard(&mut self, number: u16, shard: Shard) {
        if let Some(slot) = self.shards.get_mut(usize::from(number)) {
            *slot = shard;
        }
    }

    /// The shards that differ from those of an earlier state of the group.
    pub(crate) fn shards_changed_since(&self, before: &Self) -> Vec<(u16, Shard)> {
        let both = self.shards.iter().zip(&before.shards);
        (0..SHARDS).zip(both).filter(|(_, (new, old))| new != old).map(|(number, (new, _))| (number, *new)).collect()
    }

    /// Whether the lease of a member holds.
    pub(crate) fn holds_lease(&self, member: &Member) -> bool {
        member.lease_until > self.now
    }

    /// Renews a node's lease and takes or releases shards. `is_dead` tells of other members whether they have certainly
    /// ended. Returns the lease and the members that were removed.
    pub(crate) fn heartbeat(
        &mut self,
        request: &LeaseRequest,
        is_dead: impl Fn(&NodeId) -> bool,
    ) -> (Lease, Vec<NodeId>) {
        let (node, now) = (request.node, self.now);
        let before = self.members.get(&node);
        let lapsed = before.is_some_and(|member| !self.holds_lease(member));
        let unbroken = before.filter(|member| self.holds_lease(member)).map(|member| member.unbroken_since);
        let steady = unbroken.is_some_and(|since| since.plus(request.ttl) <= now);
        let member = Member {
            wants: request.shards,
            unbroken_since: unbroken.unwrap_or(now),
            lease_until: now.plus(request.ttl),
        };
        self.members.insert(node, member);
        let removed = self.remove_dead(node, steady, is_dead);
        self.release(node, &request.release);
        let share = self.share(node);
        let inherited = self.take(node, share);
        let owned = (0..SHARDS).zip(&self.shards).filter(|(_, shard)| shard.owner == Some(node));
        let shards: Vec<(u16, i64)> = owned.map(|(number, shard)| (number, shard.epoch)).collect();
        let lease = Lease {
            surplus: shards.iter().skip(share).map(|(number, _)| *number).collect(),
            shards,
            inherited,
            members: self.members.values().filter(|member| self.holds_lease(member)).count(),
            lapsed,
        };
        (lease, removed)
    }

    /// Removes the members that have ended, and frees the shards of nodes that are no members. A member whose lease has
    /// lapsed has ended if this node is steady: its own lease was unbroken for a whole ttl. Otherwise a stall of the
    /// database would make all members look dead to the first one back.
    fn remove_dead(&mut self, node: NodeId, steady: bool, is_dead: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let ended = |other: &NodeId, member: &Member| {
            *other != node && ((steady && !self.holds_lease(member)) || is_dead(other))
        };
        let removed: Vec<NodeId> =
            self.members.iter().filter(|(other, member)| ended(other, member)).map(|(other, _)| *other).collect();
        self.members.retain(|other, _| !removed.contains(other));
        for shard in &mut self.shards {
            if shard.owner.is_some_and(|owner| !self.members.contains_key(&owner)) {
                *shard = Shard { owner: None, clean: false, ..*shard };
            }
        }
        removed
    }

    fn release(&mut self, node: NodeId, numbers: &[u16]) {
        for number in numbers {
            if let Some(shard) = self.shards.get_mut(usize::from(*number)).filter(|shard| shard.owner == Some(node)) {
                *shard = Shard { owner: None, clean: true, ..*shard };
            }
        }
    }

    /// The number of shards that a node should have: the shares differ by one at most and add up to all.
    fn share(&self, node: NodeId) -> usize {
        let takers = || self.members.iter().filter(|(_, member)| member.wants && self.holds_lease(member));
        let Some(rank) = takers().position(|(taker, _)| *taker == node) else { return 0 };
        let (all, count) = (usize::from(SHARDS), takers().count());
        all / count + usize::from(rank < all % count)
    }

    /// Takes free shards up to the share. Returns those whose last owner did not give them up itself.
    fn take(&mut self, node: NodeId, share: usize) -> Vec<u16> {
        let owned = self.shards.iter().filter(|shard| shard.owner == Some(node)).count();
        let free = (0..SHARDS).zip(&mut self.shards).filter(|(_, shard)| shard.owner.is_none());
        let mut inherited = Vec::new();
        for (number, shard) in free.take(share.saturating_sub(owned)) {
            if !shard.clean {
                inherited.push(number);
            }
            *shard = Shard { owner: Some(node), epoch: shard.epoch + 1, clean: true };
        }
        inherited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(10);

    fn node(number: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(number))
    }

    fn request(number: u128) -> LeaseRequest {
        LeaseRequest { group: "g".into(), node: node(number), ttl: TTL, shards: true, release: Vec::new() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn none_dead(_: &NodeId) -> bool {
        false
    }

    #[test]
    fn shares_add_up_and_surplus_is_released() {
        let mut group = Group::new(at(0));
        let (first, _) = group.heartbeat(&request(1), none_dead);
        assert_eq!((first.shards.len(), first.members), (usize::from(SHARDS), 1));
        let (second, _) = group.heartbeat(&request(2), none_dead);
        assert_eq!((second.shards.len(), second.members), (0, 2));
        let (first, _) = group.heartbeat(&request(1), none_dead);
        assert_eq!(first.surplus.len(), usize::from(SHARDS) / 2);
        let release = LeaseRequest { release: first.surplus.clone(), ..request(1) };
        assert!(group.heartbeat(&release, none_dead).0.surplus.is_empty());
        let (second, _) = group.heartbeat(&request(2), none_dead);
        assert_eq!(second.shards.iter().map(|(number, _)| *number).collect::<Vec<_>>(), first.surplus);
        assert!(second.inherited.is_empty() && second.shards.iter().all(|(_, epoch)| *epoch == 2));
    }

    #[test]
    fn only_a_steady_node_inherits_from_one_whose_lease_has_lapsed() {
        let mut group = Group::new(at(0));
        group.heartbeat(&request(1), none_dead);
        group.now = at(10);
        let (lease, removed) = group.heartbeat(&request(2), none_dead);
        assert!(lease.shards.is_empty() && removed.is_empty(), "it has only just come");
        group.now = at(19);
        let before = group.clone();
        assert!(group.heartbeat(&request(2), none_dead).1.is_empty());
        assert!(group.shards_changed_since(&before).is_empty());
        group.now = at(21);
        let (lease, removed) = group.heartbeat(&request(2), none_dead);
        assert_eq!((lease.inherited.len(), removed), (usize::from(SHARDS), vec![node(1)]));
        assert_eq!(group.shards_changed_since(&before).len(), usize::from(SHARDS));
        group.now = at(40);
        assert!(group.heartbeat(&request(2), none_dead).0.lapsed);
    }

    #[test]
    fn a_dead_member_loses_its_shards_at_once() {
        let mut group = Group::new(at(0));
        group.heartbeat(&request(1), none_dead);
        let (lease, removed) = group.heartbeat(&request(2), |other| *other == node(1));
        assert_eq!((lease.shards.len(), lease.inherited.len()), (usize::from(SHARDS), usize::from(SHARDS)));
        assert_eq!((removed, lease.members), (vec![node(1)], 1));
    }
}
