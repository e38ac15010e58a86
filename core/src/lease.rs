use crate::{NodeId, Result};
use async_trait::async_trait;
use std::time::Duration;

/// Into how many shards the work of a group is divided. Each is read by one node at a time.
pub const SHARDS: u16 = 32;

/// The shard of a key: FNV-1a, so that every process, version and backend agrees.
pub fn shard_of(key: &[u8]) -> u16 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    // the low bits of FNV are weak for short keys: fold the high half in
    u16::try_from((hash ^ (hash >> 32)) % u64::from(SHARDS)).unwrap_or(0)
}

/// Membership and shard ownership of the nodes that share a group's work.
///
/// A group is an endpoint (its timers, retries, parked messages and outbox) or a queue. Correctness never rests on a
/// lease alone: every unit has a gate, every saga write a version, and an ordered endpoint's units a [`Fence`]. Leases
/// keep two nodes from doing the same work. They live by the database's clock.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Joins the group or extends this node's lease, releases what it wants to let go, and takes its fair share of the
    /// shards that are free. Call it about three times per `ttl`.
    ///
    /// A node that is gone without a [`leave`](Leases::leave) holds its shards until its lease has lapsed *and* this
    /// node's own lease was unbroken for a whole `ttl`; at once where the backend can see that the process is dead.
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease>;

    /// Leaves the group: frees the shards at once, as a clean stop.
    async fn leave(&self, group: &str, node: NodeId) -> Result<()>;
}

/// See [`Leases::heartbeat`].
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// The group.
    pub group: String,
    /// This node.
    pub node: NodeId,
    /// How long the lease lasts without another heartbeat.
    pub ttl: Duration,
    /// Whether the node wants shards at all; a send-only endpoint does not.
    pub shards: bool,
    /// Shards that it has finished with and gives up.
    pub release: Vec<u16>,
}

/// What this node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The shards, each with the epoch in which they were taken. The epoch grows whenever the owner changes.
    pub shards: Vec<(u16, i64)>,
    /// Shards of the above that were taken over, by this very call, from a node that did not leave cleanly: what was in
    /// flight there may have killed it.
    pub inherited: Vec<u16>,
    /// Shards of the above that are more than a fair share: finish them and release them.
    pub surplus: Vec<u16>,
    /// How many live members the group has.
    pub members: usize,
    /// The lease had lapsed before this call: everything read ahead under it is void.
    pub lapsed: bool,
}

/// Proof of owning a shard, compared when a unit of an ordered endpoint commits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The group.
    pub group: std::sync::Arc<str>,
    /// The shard.
    pub shard: u16,
    /// The epoch in which it was taken.
    pub epoch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_spread_evenly_and_never_move() {
        let mut counts = [0u32; SHARDS as usize];
        for n in 0..32_000u32 {
            counts[usize::from(shard_of(n.to_string().as_bytes()))] += 1;
        }
        assert!(counts.iter().all(|c| (700..1300).contains(c)), "{counts:?}");
        assert_eq!((shard_of(b""), shard_of(b"order-1")), (shard_of(b""), shard_of(b"order-1")));
    }
}
