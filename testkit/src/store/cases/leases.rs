//! Who works on which shard. Only the fences are about correctness.

use crate::store::{Fixture, fixture::outcome_codes};
use sagabus_core::{Fence, Lease, LeaseRequest, NodeId, SHARDS};
use std::{collections::BTreeMap, time::Duration};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(250);

async fn beat(fixture: &Fixture, group: &str, node: NodeId, ttl: Duration, release: Vec<u16>) -> Lease {
    let request = LeaseRequest { group: group.into(), node, ttl, shards: true, release };
    let lease = fixture.store.leases().heartbeat(&request).await.expect("heartbeat");
    assert!(lease.surplus.iter().chain(&lease.inherited).all(|n| lease.shards.iter().any(|(shard, _)| shard == n)));
    lease
}

fn numbers(lease: &Lease) -> Vec<u16> {
    lease.shards.iter().map(|(shard, _)| *shard).collect()
}

/// All nodes beat and give up their surplus, until nothing moves any more. No shard ever has two owners.
async fn settle(fixture: &Fixture, nodes: &[NodeId]) -> BTreeMap<NodeId, Lease> {
    let mut leases = BTreeMap::<NodeId, Lease>::new();
    for _ in 0..8 {
        for node in nodes {
            let release = leases.get(node).map(|lease| lease.surplus.clone()).unwrap_or_default();
            let lease = beat(fixture, "g", *node, LONG, release).await;
            leases.insert(*node, lease);
            // by what each was told last: a shard that was released in this round may appear with its old owner
        }
    }
    let mut all: Vec<u16> = leases.values().flat_map(numbers).collect();
    all.sort_unstable();
    assert_eq!(all, (0..SHARDS).collect::<Vec<_>>(), "every shard has one owner");
    leases
}

/// One to five members share fairly: shares differ by one at most.
pub async fn members_share_fairly(fixture: Fixture) {
    let mut nodes = Vec::new();
    for count in 1..=5 {
        nodes.push(NodeId(fixture.runtime.uuid()));
        let leases = settle(&fixture, &nodes).await;
        let shares: Vec<usize> = leases.values().map(|lease| lease.shards.len()).collect();
        let (least, most) = (shares.iter().min().expect("one"), shares.iter().max().expect("one"));
        assert!(most - least <= 1, "{shares:?}");
        assert!(leases.values().all(|lease| lease.members == count && lease.surplus.is_empty() && !lease.lapsed));
    }
}

/// A newcomer gets nothing that somebody still works on; it is asked back as surplus first.
pub async fn surplus_is_given_up_first(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    assert_eq!(beat(&fixture, "g", one, LONG, Vec::new()).await.shards.len(), 32);
    assert_eq!(beat(&fixture, "g", two, LONG, Vec::new()).await.shards.len(), 0);
    let lease = beat(&fixture, "g", one, LONG, Vec::new()).await;
    assert_eq!((lease.shards.len(), lease.surplus.len()), (32, 16));
    assert_eq!(beat(&fixture, "g", two, LONG, Vec::new()).await.shards.len(), 0, "not before they are released");
    let after = beat(&fixture, "g", one, LONG, lease.surplus.clone()).await;
    assert_eq!((after.shards.len(), after.surplus.len()), (16, 0));
    let taken = beat(&fixture, "g", two, LONG, Vec::new()).await;
    let mut given = lease.surplus.clone();
    given.sort_unstable();
    assert_eq!((numbers(&taken), taken.inherited.len()), (given, 0));
    assert!(taken.shards.iter().all(|(shard, epoch)| lease.shards.iter().any(|(s, e)| s == shard && epoch > e)));
    // releasing what one does not own does nothing
    beat(&fixture, "g", one, LONG, numbers(&taken)).await;
    assert_eq!(numbers(&beat(&fixture, "g", two, LONG, Vec::new()).await), numbers(&taken));
}

/// An epoch stays while the owner does.
pub async fn epochs_stay_with_the_owner(fixture: Fixture) {
    let node = NodeId(fixture.runtime.uuid());
    let first = beat(&fixture, "g", node, LONG, Vec::new()).await;
    for _ in 0..3 {
        assert_eq!(beat(&fixture, "g", node, LONG, Vec::new()).await, first);
    }
    assert_eq!((first.members, first.lapsed), (1, false));
}

/// A node that leaves frees its shards at once, with nothing to inherit.
pub async fn leaving_frees_at_once(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    let first = beat(&fixture, "g", one, LONG, Vec::new()).await;
    fixture.store.leases().leave("g", one).await.expect("leave");
    fixture.store.leases().leave("g", one).await.expect("leave twice");
    let second = beat(&fixture.other().await, "g", two, LONG, Vec::new()).await;
    assert_eq!((second.shards.len(), second.inherited.len(), second.members), (32, 0, 1));
    assert!(second.shards.iter().zip(&first.shards).all(|(new, old)| new.0 == old.0 && new.1 > old.1));
}

/// The shards of a node that fell silent are taken over, marked as inherited, with higher epochs; it learns that its
/// lease had lapsed.
pub async fn a_silent_node_is_inherited(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    let first = beat(&fixture, "g", one, SHORT, Vec::new()).await;
    let start = fixture.runtime.elapsed();
    let second = fixture
        .until("the shards are inherited", || async {
            Some(beat(&fixture, "g", two, SHORT, Vec::new()).await).filter(|lease| !lease.shards.is_empty())
        })
        .await;
    assert!(fixture.runtime.elapsed() - start >= SHORT.mul_f32(0.9), "taken over from a living node");
    assert_eq!((second.shards.len(), second.inherited.len(), second.members), (32, 32, 1));
    assert!(second.shards.iter().zip(&first.shards).all(|(new, old)| new.1 > old.1));
    assert_eq!(beat(&fixture, "g", two, SHORT, Vec::new()).await.inherited.len(), 0, "told once");
    let back = beat(&fixture, "g", one, SHORT, Vec::new()).await;
    assert_eq!((back.lapsed, back.shards.len(), back.members), (true, 0, 2));
    assert!(!beat(&fixture, "g", one, SHORT, Vec::new()).await.lapsed, "told once");
}

/// Who comes to a group of lapsed members waits a whole period of its own: perhaps only the database stood still.
pub async fn an_heir_waits_its_own_period(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    let short = Duration::from_millis(60);
    beat(&fixture, "g", one, short, Vec::new()).await;
    let start = fixture.runtime.elapsed();
    fixture
        .until("the lease has lapsed", || async { (fixture.runtime.elapsed() - start > short * 2).then_some(()) })
        .await;
    assert_eq!(beat(&fixture, "g", two, LONG, Vec::new()).await.shards.len(), 0);
    assert_eq!(beat(&fixture, "g", two, LONG, Vec::new()).await.shards.len(), 0);
    let back = beat(&fixture, "g", one, LONG, Vec::new()).await;
    assert!(back.lapsed && back.shards.len() >= 16, "{back:?}");
}

/// A member that wants no shards is one, and gets none.
pub async fn some_want_no_shards(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    let request = LeaseRequest { group: "g".into(), node: one, ttl: LONG, shards: false, release: Vec::new() };
    let lease = fixture.store.leases().heartbeat(&request).await.expect("heartbeat");
    assert_eq!((lease.shards.len(), lease.members), (0, 1));
    let lease = beat(&fixture, "g", two, LONG, Vec::new()).await;
    assert_eq!((lease.shards.len(), lease.members), (32, 2));
}

/// Groups know nothing of each other.
pub async fn groups_do_not_mix(fixture: Fixture) {
    let (one, two) = (NodeId(fixture.runtime.uuid()), NodeId(fixture.runtime.uuid()));
    for (group, node) in [("g", one), ("queue:g", two), ("G", one)] {
        let lease = beat(&fixture, group, node, LONG, Vec::new()).await;
        assert_eq!((lease.shards.len(), lease.members), (32, 1), "{group}");
    }
    fixture.store.leases().leave("g", one).await.expect("leave");
    assert_eq!(beat(&fixture, "G", one, LONG, Vec::new()).await.shards.len(), 32);
}

/// A unit with a fence applies while its node owns the shard, and is refused once another one took it.
pub async fn fences_hold_until_the_take_over(fixture: Fixture) {
    let (one, two) = (fixture.owner.node, NodeId(fixture.runtime.uuid()));
    let lease = beat(&fixture, "g", one, LONG, Vec::new()).await;
    let (shard, epoch) = lease.shards[3];
    let fenced = |shard, epoch, group: &str| {
        let mut unit = fixture.unit();
        unit.fence = Some(Fence { group: group.into(), shard, epoch });
        unit
    };
    fixture.apply(fenced(shard, epoch, "g")).await;
    let wrong = vec![fenced(shard, epoch - 1, "g"), fenced(shard, epoch + 1, "g"), fenced(shard, epoch, "other")];
    assert_eq!(outcome_codes(&fixture.commit(wrong).await), "SSS");
    let mixed = vec![fenced(shard, epoch, "g"), fenced(shard, epoch + 1, "g"), fixture.unit()];
    assert_eq!(outcome_codes(&fixture.commit(mixed).await), "ASA");
    fixture.store.leases().leave("g", one).await.expect("leave");
    beat(&fixture, "g", two, LONG, Vec::new()).await;
    let late = fenced(shard, epoch, "g");
    assert_eq!(outcome_codes(&fixture.commit(vec![late.clone()]).await), "S");
    assert!(!fixture.probe(late.message_id).await);
    let mut other = fixture.other().await;
    other.owner.node = two;
    let now = beat(&fixture, "g", two, LONG, Vec::new()).await.shards[3];
    let mut unit = late;
    unit.fence = Some(Fence { group: "g".into(), shard: now.0, epoch: now.1 });
    other.apply(unit).await;
}
