//! Units of one key form a chain: each builds on what the one before it wrote.

use crate::store::{Fixture, complete, create, fixture::outcome_codes, to_queue, update};
use sagabus_core::{InstanceId, OutboxId, UnitOfWork};

/// A chain of updates from this version on, each with a send.
fn chain(fixture: &Fixture, key: &str, instance: InstanceId, from: i64, count: i64) -> Vec<UnitOfWork> {
    (from..from + count)
        .map(|version| {
            let mut unit = fixture.writes(update(key, instance, version, format!("{key}{version}")));
            unit.sends.push(to_queue("q", fixture.message()));
            unit
        })
        .collect()
}

/// (a): a hundred units of one key in one batch all apply, with the effects of each in order.
pub async fn a_hundred_units_fold(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let units = chain(&fixture, "k", instance, 1, 100);
    let sent: Vec<_> = units.iter().map(|unit| unit.sends[0].message.headers.message_id).collect();
    let reply = fixture.split(units.clone()).await;
    assert_eq!(outcome_codes(&reply.outcomes), "A".repeat(100));
    assert_eq!(fixture.version("k").await, Some((101, b"k100".to_vec())));
    assert_eq!(fixture.inbox().await, 101);
    let rows = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 1000).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.outgoing.message.headers.message_id).collect::<Vec<_>>(), sent);
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "D".repeat(100));
    assert_eq!(fixture.version("k").await, Some((101, b"k100".to_vec())));
}

/// (a): a chain may begin with the start of the saga and end with its completion.
pub async fn a_whole_life_in_one_batch(fixture: Fixture) {
    let instance = fixture.instance();
    let mut units = vec![fixture.writes(create("k", instance, &b"0"[..]))];
    units.extend(chain(&fixture, "k", instance, 1, 5));
    let reply = fixture.split(units).await;
    assert_eq!(outcome_codes(&reply.outcomes), "AAAAAA");
    assert_eq!(fixture.version("k").await, Some((6, b"k5".to_vec())));

    let mut units = chain(&fixture, "k", instance, 6, 3);
    units.push(fixture.writes(complete("k", instance, 9)));
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "AAAA");
    assert_eq!(fixture.saga("k").await, None);

    let instance = fixture.instance();
    let units = vec![fixture.writes(create("k", instance, &b"0"[..])), fixture.writes(complete("k", instance, 1))];
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "AA");
    assert_eq!((fixture.saga("k").await, fixture.count("saga").await), (None, 0));
}

/// (h): a stale first unit takes its chain with it, and nothing of the chain is done.
pub async fn a_stale_head_fails_the_chain(fixture: Fixture) {
    let instance = fixture.born("k").await;
    fixture.apply(fixture.writes(update("k", instance, 1, &b"other"[..]))).await;
    let reply = fixture.split(chain(&fixture, "k", instance, 1, 5)).await;
    // the second one's version is the row's, but by chance: it was built on a state that was never written
    assert_eq!(outcome_codes(&reply.outcomes), "SSSSS");
    assert_eq!(fixture.version("k").await, Some((2, b"other".to_vec())));
    assert_eq!((fixture.count("outbox").await, fixture.inbox().await), (0, 2));
}

/// (h): a stale unit in the middle spares the ones before it, and takes the later ones with it.
pub async fn stale_in_the_middle(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let mut units = chain(&fixture, "k", instance, 1, 6);
    units[3].saga = Some(update("k", fixture.instance(), 4, &b"zombie"[..]));
    let outcomes = outcome_codes(&fixture.split(units).await.outcomes);
    assert_eq!(outcomes, "AAASSS");
    assert_eq!(fixture.version("k").await, Some((4, b"k3".to_vec())));
    assert_eq!(fixture.count("outbox").await, 3);
}

/// (h): a duplicate in the middle likewise: what came after it was built on a state that was not written now.
pub async fn duplicate_in_the_middle(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let mut units = chain(&fixture, "k", instance, 1, 6);
    let seen = fixture.unit();
    fixture.apply(seen.clone()).await;
    units[3].message_id = seen.message_id;
    let outcomes = outcome_codes(&fixture.split(units).await.outcomes);
    assert_eq!(outcomes, "AAADSS");
    assert_eq!(fixture.version("k").await, Some((4, b"k3".to_vec())));
    assert_eq!(fixture.count("outbox").await, 3);
}

/// (h): a duplicate head likewise.
pub async fn duplicate_head(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let units = chain(&fixture, "k", instance, 1, 3);
    fixture.apply(units[0].clone()).await;
    // the versions of the later ones fit, but they were built on what this run of the first one would have written,
    // which need not be what its earlier run wrote
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "DSS");
    assert_eq!(fixture.version("k").await, Some((2, b"k1".to_vec())));
}

/// (f): several kinds, several keys and units without a saga share a batch, interleaved.
pub async fn chains_interleave(fixture: Fixture) {
    let (one, two) = (fixture.born("one").await, fixture.born("two").await);
    let mut other = create("one", fixture.instance(), &b"other kind"[..]);
    other.kind = "shop/other".into();
    let mut units = Vec::new();
    for (a, b) in chain(&fixture, "one", one, 1, 10).into_iter().zip(chain(&fixture, "two", two, 1, 10)) {
        units.extend([a, fixture.unit(), b]);
    }
    units.insert(7, fixture.writes(other));
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "A".repeat(31));
    assert_eq!(fixture.version("one").await, Some((11, b"one10".to_vec())));
    assert_eq!(fixture.version("two").await, Some((11, b"two10".to_vec())));
    let kind = "shop/other".into();
    let row = fixture.find(sagabus_core::SagaLookup::Key { kind, key: "one".into() }).await.expect("the other kind");
    assert_eq!((row.version, &row.state[..]), (1, &b"other kind"[..]));
}

/// (h): a chain that fails takes no other chain with it.
pub async fn a_broken_chain_spares_the_others(fixture: Fixture) {
    let (one, two) = (fixture.born("one").await, fixture.born("two").await);
    let mut units = Vec::new();
    for (a, b) in chain(&fixture, "one", one, 2, 5).into_iter().zip(chain(&fixture, "two", two, 1, 5)) {
        units.extend([a, b, fixture.unit()]);
    }
    assert_eq!(outcome_codes(&fixture.split(units).await.outcomes), "SAASAASAASAASAA");
    assert_eq!(fixture.version("one").await, Some((1, b"born".to_vec())));
    assert_eq!(fixture.version("two").await, Some((6, b"two5".to_vec())));
    assert_eq!(fixture.count("outbox").await, 5);
}

/// Contract (a): two processes that commit chains of one key at the same time never both write a version.
pub async fn racing_chains_never_mix(fixture: Fixture) {
    let instance = fixture.born("k").await;
    let beds = [fixture.other().await, fixture.other().await];
    let replies = beds.iter().map(|fixture| fixture.split(chain(fixture, "k", instance, 1, 20)));
    let outcomes: Vec<String> =
        futures::future::join_all(replies).await.iter().map(|reply| outcome_codes(&reply.outcomes)).collect();
    let applied = outcomes.iter().map(|outcome_codes| outcome_codes.matches('A').count()).sum::<usize>();
    assert_eq!(applied, 20, "{outcomes:?}");
    assert_eq!(fixture.version("k").await, Some((21, b"k20".to_vec())));
    assert_eq!(fixture.count("outbox").await, 20);
}
