//! Units of one key form a chain: each builds on what the one before it wrote.

use crate::store::{Bed, bed::letters, complete, create, to_queue, update};
use sagabus_core::{InstanceId, OutboxId, UnitOfWork};

/// A chain of updates from this version on, each with a send.
fn chain(bed: &Bed, key: &str, instance: InstanceId, from: i64, count: i64) -> Vec<UnitOfWork> {
    (from..from + count)
        .map(|version| {
            let mut unit = bed.writes(update(key, instance, version, format!("{key}{version}")));
            unit.sends.push(to_queue("q", bed.message()));
            unit
        })
        .collect()
}

/// (a): a hundred units of one key in one batch all apply, with the effects of each in order.
pub async fn a_hundred_units_fold(bed: Bed) {
    let instance = bed.born("k").await;
    let units = chain(&bed, "k", instance, 1, 100);
    let sent: Vec<_> = units.iter().map(|unit| unit.sends[0].message.headers.message_id).collect();
    let reply = bed.split(units.clone()).await;
    assert_eq!(letters(&reply.outcomes), "A".repeat(100));
    assert_eq!(bed.version("k").await, Some((101, b"k100".to_vec())));
    assert_eq!(bed.inbox().await, 101);
    let rows = bed.store.outbox_own(&bed.owner, OutboxId(0), 1000).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.outgoing.message.headers.message_id).collect::<Vec<_>>(), sent);
    assert_eq!(letters(&bed.split(units).await.outcomes), "D".repeat(100));
    assert_eq!(bed.version("k").await, Some((101, b"k100".to_vec())));
}

/// (a): a chain may begin with the start of the saga and end with its completion.
pub async fn a_whole_life_in_one_batch(bed: Bed) {
    let instance = bed.instance();
    let mut units = vec![bed.writes(create("k", instance, &b"0"[..]))];
    units.extend(chain(&bed, "k", instance, 1, 5));
    let reply = bed.split(units).await;
    assert_eq!(letters(&reply.outcomes), "AAAAAA");
    assert_eq!(bed.version("k").await, Some((6, b"k5".to_vec())));

    let mut units = chain(&bed, "k", instance, 6, 3);
    units.push(bed.writes(complete("k", instance, 9)));
    assert_eq!(letters(&bed.split(units).await.outcomes), "AAAA");
    assert_eq!(bed.saga("k").await, None);

    let instance = bed.instance();
    let units = vec![bed.writes(create("k", instance, &b"0"[..])), bed.writes(complete("k", instance, 1))];
    assert_eq!(letters(&bed.split(units).await.outcomes), "AA");
    assert_eq!((bed.saga("k").await, bed.count("saga").await), (None, 0));
}

/// (h): a stale first unit takes its chain with it, and nothing of the chain is done.
pub async fn a_stale_head_fails_the_chain(bed: Bed) {
    let instance = bed.born("k").await;
    bed.apply(bed.writes(update("k", instance, 1, &b"other"[..]))).await;
    let reply = bed.split(chain(&bed, "k", instance, 1, 5)).await;
    // the second one's version is the row's, but by chance: it was built on a state that was never written
    assert_eq!(letters(&reply.outcomes), "SSSSS");
    assert_eq!(bed.version("k").await, Some((2, b"other".to_vec())));
    assert_eq!((bed.count("outbox").await, bed.inbox().await), (0, 2));
}

/// (h): a stale unit in the middle spares the ones before it, and takes the later ones with it.
pub async fn stale_in_the_middle(bed: Bed) {
    let instance = bed.born("k").await;
    let mut units = chain(&bed, "k", instance, 1, 6);
    units[3].saga = Some(update("k", bed.instance(), 4, &b"zombie"[..]));
    let outcomes = letters(&bed.split(units).await.outcomes);
    assert_eq!(outcomes, "AAASSS");
    assert_eq!(bed.version("k").await, Some((4, b"k3".to_vec())));
    assert_eq!(bed.count("outbox").await, 3);
}

/// (h): a duplicate in the middle likewise: what came after it was built on a state that was not written now.
pub async fn duplicate_in_the_middle(bed: Bed) {
    let instance = bed.born("k").await;
    let mut units = chain(&bed, "k", instance, 1, 6);
    let seen = bed.unit();
    bed.apply(seen.clone()).await;
    units[3].message_id = seen.message_id;
    let outcomes = letters(&bed.split(units).await.outcomes);
    assert_eq!(outcomes, "AAADSS");
    assert_eq!(bed.version("k").await, Some((4, b"k3".to_vec())));
    assert_eq!(bed.count("outbox").await, 3);
}

/// (h): a duplicate head likewise.
pub async fn duplicate_head(bed: Bed) {
    let instance = bed.born("k").await;
    let units = chain(&bed, "k", instance, 1, 3);
    bed.apply(units[0].clone()).await;
    // the versions of the later ones fit, but they were built on what this run of the first one would have written,
    // which need not be what its earlier run wrote
    assert_eq!(letters(&bed.split(units).await.outcomes), "DSS");
    assert_eq!(bed.version("k").await, Some((2, b"k1".to_vec())));
}

/// (f): several kinds, several keys and units without a saga share a batch, interleaved.
pub async fn chains_interleave(bed: Bed) {
    let (one, two) = (bed.born("one").await, bed.born("two").await);
    let mut other = create("one", bed.instance(), &b"other kind"[..]);
    other.kind = "shop/other".into();
    let mut units = Vec::new();
    for (a, b) in chain(&bed, "one", one, 1, 10).into_iter().zip(chain(&bed, "two", two, 1, 10)) {
        units.extend([a, bed.unit(), b]);
    }
    units.insert(7, bed.writes(other));
    assert_eq!(letters(&bed.split(units).await.outcomes), "A".repeat(31));
    assert_eq!(bed.version("one").await, Some((11, b"one10".to_vec())));
    assert_eq!(bed.version("two").await, Some((11, b"two10".to_vec())));
    let kind = "shop/other".into();
    let row = bed.find(sagabus_core::SagaLookup::Key { kind, key: "one".into() }).await.expect("the other kind");
    assert_eq!((row.version, &row.state[..]), (1, &b"other kind"[..]));
}

/// (h): a chain that fails takes no other chain with it.
pub async fn a_broken_chain_spares_the_others(bed: Bed) {
    let (one, two) = (bed.born("one").await, bed.born("two").await);
    let mut units = Vec::new();
    for (a, b) in chain(&bed, "one", one, 2, 5).into_iter().zip(chain(&bed, "two", two, 1, 5)) {
        units.extend([a, b, bed.unit()]);
    }
    assert_eq!(letters(&bed.split(units).await.outcomes), "SAASAASAASAASAA");
    assert_eq!(bed.version("one").await, Some((1, b"born".to_vec())));
    assert_eq!(bed.version("two").await, Some((6, b"two5".to_vec())));
    assert_eq!(bed.count("outbox").await, 5);
}

/// Contract (a): two processes that commit chains of one key at the same time never both write a version.
pub async fn racing_chains_never_mix(bed: Bed) {
    let instance = bed.born("k").await;
    let beds = [bed.other().await, bed.other().await];
    let replies = beds.iter().map(|bed| bed.split(chain(bed, "k", instance, 1, 20)));
    let outcomes: Vec<String> =
        futures::future::join_all(replies).await.iter().map(|reply| letters(&reply.outcomes)).collect();
    let applied = outcomes.iter().map(|letters| letters.matches('A').count()).sum::<usize>();
    assert_eq!(applied, 20, "{outcomes:?}");
    assert_eq!(bed.version("k").await, Some((21, b"k20".to_vec())));
    assert_eq!(bed.count("outbox").await, 20);
}
