//! A handler's own rows, in the same transaction as its unit.

use crate::store::{Fixture, create, fixture::outcome_codes, to_queue, update};
use sagabus_core::{CommitReply, Gate, OutboxId, Outcome, Transaction, UnitOfWork};

/// Opens a transaction. A backend without own SQL must refuse; then the rest of the case does not apply.
async fn begin(fixture: &Fixture) -> Option<Box<dyn Transaction>> {
    let transaction = fixture.store.begin().await;
    if fixture.harness.own_sql() {
        return Some(transaction.expect("begin"));
    }
    let error = transaction.err().expect("own SQL is not refused");
    assert!(error.is_unsupported(), "refused with the wrong error: {error:?}");
    None
}

async fn put(fixture: &Fixture, transaction: &mut Box<dyn Transaction>, key: &str, value: &str) {
    fixture.harness.own_put(transaction.raw(), key, value).await;
}

async fn read(fixture: &Fixture, key: &str) -> Option<String> {
    let mut transaction = fixture.store.begin().await.expect("begin");
    fixture.harness.own_get(transaction.raw(), key).await
}

async fn finish(fixture: &Fixture, transaction: Box<dyn Transaction>, unit: UnitOfWork) -> CommitReply {
    transaction.finish(fixture.batch(fixture.store.queues().is_some(), vec![unit])).await
}

/// Own rows commit with the unit, and are seen by nobody before.
pub async fn own_rows_commit_with_the_unit(fixture: Fixture) {
    let Some(mut transaction) = begin(&fixture).await else { return };
    put(&fixture, &mut transaction, "row", "1").await;
    assert_eq!(fixture.harness.own_get(transaction.raw(), "row").await.as_deref(), Some("1"), "sees its own writes");
    assert_eq!(fixture.harness.own_get(transaction.raw(), "none").await, None);
    let unit = fixture.writes(create("k", fixture.instance(), &b"x"[..]));
    let id = unit.message_id;
    let reply = finish(&fixture, transaction, unit.clone()).await;
    assert_eq!(outcome_codes(&reply.outcomes), "A");
    assert_eq!(read(&fixture, "row").await.as_deref(), Some("1"));
    assert_eq!(fixture.version("k").await, Some((1, b"x".to_vec())));
    assert!(fixture.probe(id).await);
    assert_eq!(outcome_codes(&fixture.commit(vec![unit]).await), "D");
}

/// A transaction that is dropped leaves nothing, and blocks nobody.
pub async fn dropping_rolls_back(fixture: Fixture) {
    let Some(mut transaction) = begin(&fixture).await else { return };
    put(&fixture, &mut transaction, "row", "1").await;
    drop(transaction);
    for round in 0..20 {
        let mut transaction = begin(&fixture).await.expect("own SQL");
        put(&fixture, &mut transaction, "row", &round.to_string()).await;
    }
    assert_eq!(read(&fixture, "row").await, None);
    fixture.apply(fixture.unit()).await;
}

/// A unit that was handled before rolls the own rows back.
pub async fn duplicate_rolls_back(fixture: Fixture) {
    let Some(mut transaction) = begin(&fixture).await else { return };
    put(&fixture, &mut transaction, "row", "1").await;
    let unit = fixture.unit();
    assert_eq!(outcome_codes(&finish(&fixture, transaction, unit.clone()).await.outcomes), "A");
    let mut transaction = begin(&fixture).await.expect("own SQL");
    put(&fixture, &mut transaction, "row", "2").await;
    put(&fixture, &mut transaction, "other", "2").await;
    let reply = finish(&fixture, transaction, unit).await;
    assert_eq!(outcome_codes(&reply.outcomes), "D");
    assert_eq!((read(&fixture, "row").await.as_deref(), read(&fixture, "other").await), (Some("1"), None));
}

/// A stale saga, or a lost fence, rolls the own rows back; run again, they commit once.
pub async fn stale_rolls_back(fixture: Fixture) {
    let Some(mut transaction) = begin(&fixture).await else { return };
    put(&fixture, &mut transaction, "row", "stale").await;
    drop(transaction);
    let instance = fixture.born("k").await;
    let mut transaction = begin(&fixture).await.expect("own SQL");
    put(&fixture, &mut transaction, "row", "stale").await;
    let mut unit = fixture.writes(update("k", instance, 7, &b"bad"[..]));
    unit.sends.push(to_queue("q", fixture.message()));
    assert_eq!(outcome_codes(&finish(&fixture, transaction, unit.clone()).await.outcomes), "S");
    assert_eq!(read(&fixture, "row").await, None);
    let mut transaction = begin(&fixture).await.expect("own SQL");
    put(&fixture, &mut transaction, "row", "fence").await;
    let mut fenced = fixture.unit();
    fenced.fence = Some(sagabus_core::Fence { group: "nobody".into(), shard: 1, epoch: 1 });
    assert_eq!(outcome_codes(&finish(&fixture, transaction, fenced).await.outcomes), "S");
    assert_eq!(read(&fixture, "row").await, None);
    let mut transaction = begin(&fixture).await.expect("own SQL");
    put(&fixture, &mut transaction, "row", "good").await;
    unit.saga = Some(update("k", instance, 1, &b"good"[..]));
    unit.sends.clear();
    assert_eq!(outcome_codes(&finish(&fixture, transaction, unit).await.outcomes), "A");
    assert_eq!(read(&fixture, "row").await.as_deref(), Some("good"));
    assert_eq!(fixture.version("k").await, Some((2, b"good".to_vec())));
}

/// A unit with own rows records sends, and takes confirmed rows along, like any other; a failed one keeps them.
pub async fn sends_and_sent_rows(fixture: Fixture) {
    let Some(transaction) = begin(&fixture).await else { return };
    let mut unit = fixture.unit();
    unit.sends = vec![to_queue("q", fixture.message()), to_queue("q", fixture.message())];
    let reply = transaction.finish(fixture.batch(false, vec![unit.clone()])).await;
    let Outcome::Applied { outbox, blocked_by_predecessor: false } = &reply.outcomes[0] else { panic!("{reply:?}") };
    assert_eq!(outbox.len(), 2);
    let mut batch = fixture.batch(false, vec![unit]);
    batch.sent = outbox[..1].to_vec();
    let reply = begin(&fixture).await.expect("own SQL").finish(batch).await;
    assert_eq!(outcome_codes(&reply.outcomes), "D");
    let left = fixture.count("outbox").await;
    assert_eq!(left, if reply.cleaned { 1 } else { 2 }, "`cleaned` says what happened");
    let mut batch = fixture.batch(false, vec![fixture.unit()]);
    batch.sent = outbox.clone();
    let reply = begin(&fixture).await.expect("own SQL").finish(batch).await;
    assert_eq!((outcome_codes(&reply.outcomes).as_str(), reply.cleaned), ("A", true));
    assert_eq!(fixture.count("outbox").await, 0);
}

/// Transactions of several processes that read and write the same own row lose nothing.
pub async fn own_rows_are_isolated(fixture: Fixture) {
    let Some(mut transaction) = begin(&fixture).await else { return };
    put(&fixture, &mut transaction, "sum", "0").await;
    assert_eq!(outcome_codes(&finish(&fixture, transaction, fixture.unit()).await.outcomes), "A");
    let beds = [fixture.other().await, fixture.other().await];
    let work = beds.iter().map(|fixture| async move {
        let (mut done, mut tries) = (0, 0);
        while done < 10 {
            tries += 1;
            assert!(tries < 5_000, "never applied");
            // through a saga, so that the version decides where the database itself does not serialise
            let before = fixture.version("sum").await;
            let mut transaction = begin(fixture).await.expect("own SQL");
            let sum = fixture.harness.own_get(transaction.raw(), "sum").await.expect("a row");
            let next = sum.parse::<u32>().expect("a number") + 1;
            put(fixture, &mut transaction, "sum", &next.to_string()).await;
            let row = fixture.store.admin().saga(crate::store::KIND, "sum").await;
            let instance = row.ok().flatten().map(|row| row.instance);
            let unit = match (before, instance) {
                (Some((version, _)), Some(instance)) => fixture.writes(update("sum", instance, version, &b"x"[..])),
                _ => fixture.writes(create("sum", fixture.instance(), &b"x"[..])),
            };
            if finish(fixture, transaction, unit).await.outcomes[0].is_applied() {
                done += 1;
            }
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(read(&fixture, "sum").await.as_deref(), Some("20"));
    assert_eq!(fixture.version("sum").await.map(|(version, _)| version), Some(20));
}

/// Batches and own transactions of one key take turns: each sees what the other has committed.
pub async fn batches_and_transactions_alternate(fixture: Fixture) {
    let Some(transaction) = begin(&fixture).await else { return };
    drop(transaction);
    let instance = fixture.born("k").await;
    for version in (1..20).step_by(2) {
        fixture.apply(fixture.writes(update("k", instance, version, &b"batch"[..]))).await;
        let mut transaction = begin(&fixture).await.expect("own SQL");
        put(&fixture, &mut transaction, &format!("row{version}"), "x").await;
        let unit = fixture.writes(update("k", instance, version + 1, &b"own"[..]));
        assert_eq!(outcome_codes(&finish(&fixture, transaction, unit).await.outcomes), "A");
    }
    assert_eq!(fixture.version("k").await, Some((21, b"own".to_vec())));
}

/// Sends enlisted in a caller's own transaction leave if and only if it commits: joined.
pub async fn enlisted_sends_are_joined(fixture: Fixture) {
    if fixture.queues(&["q"]).await.is_none() || !enlists(&fixture, true).await {
        return;
    }
    assert_eq!((fixture.queue("q").await.len(), fixture.count("outbox").await), (1, 0));
    assert_eq!(fixture.dead().await.len(), 1, "the one to an unknown queue");
}

/// Likewise into the outbox, where the relay finds them.
pub async fn enlisted_sends_are_recorded(fixture: Fixture) {
    if !enlists(&fixture, false).await {
        return;
    }
    let rows = fixture.store.outbox_own(&fixture.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.outgoing.to.name()).collect::<Vec<_>>(), ["q", "nowhere"]);
}

/// Enlists two sends in a transaction that is dropped, and two in one that commits.
async fn enlists(fixture: &Fixture, joined: bool) -> bool {
    for commits in [false, true] {
        let Some(mut transaction) = begin(fixture).await else { return false };
        put(fixture, &mut transaction, "row", "1").await;
        let sends = vec![to_queue("q", fixture.message()), to_queue("nowhere", fixture.message())];
        fixture.store.enlist(transaction.raw(), &fixture.owner, joined, sends).await.expect("enlist");
        if commits {
            let unit = fixture.unit_of("", fixture.id(), Gate::None);
            let reply = transaction.finish(fixture.batch(joined, vec![unit])).await;
            assert_eq!(outcome_codes(&reply.outcomes), "A");
        }
    }
    assert_eq!((read(fixture, "row").await.as_deref(), fixture.inbox().await), (Some("1"), 0));
    true
}

/// A connection of another backend is refused.
pub async fn a_foreign_connection_is_refused(fixture: Fixture) {
    let mut foreign = 5_u8;
    let sends = vec![to_queue("q", fixture.message())];
    let error = fixture.store.enlist(&mut foreign, &fixture.owner, false, sends).await.expect_err("refused");
    assert!(error.is_invalid() || error.is_unsupported(), "{error:?}");
    assert_eq!(fixture.count("outbox").await, 0);
}
