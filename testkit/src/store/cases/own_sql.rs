//! A handler's own rows, in the same transaction as its unit.

use crate::store::{Bed, bed::letters, create, to_queue, update};
use sagabus_core::{CommitReply, Gate, OutboxId, Outcome, Transaction, UnitOfWork};

/// Opens a transaction. A backend without own SQL must refuse; then the rest of the case does not apply.
async fn begin(bed: &Bed) -> Option<Box<dyn Transaction>> {
    let transaction = bed.store.begin().await;
    if bed.harness.own_sql() {
        return Some(transaction.expect("begin"));
    }
    let error = transaction.err().expect("own SQL is not refused");
    assert!(error.is_unsupported(), "refused with the wrong error: {error:?}");
    None
}

async fn put(bed: &Bed, transaction: &mut Box<dyn Transaction>, key: &str, value: &str) {
    bed.harness.own_put(transaction.raw(), key, value).await;
}

async fn read(bed: &Bed, key: &str) -> Option<String> {
    let mut transaction = bed.store.begin().await.expect("begin");
    bed.harness.own_get(transaction.raw(), key).await
}

async fn finish(bed: &Bed, transaction: Box<dyn Transaction>, unit: UnitOfWork) -> CommitReply {
    transaction.finish(bed.batch(bed.store.queues().is_some(), vec![unit])).await
}

/// Own rows commit with the unit, and are seen by nobody before.
pub async fn own_rows_commit_with_the_unit(bed: Bed) {
    let Some(mut transaction) = begin(&bed).await else { return };
    put(&bed, &mut transaction, "row", "1").await;
    assert_eq!(bed.harness.own_get(transaction.raw(), "row").await.as_deref(), Some("1"), "sees its own writes");
    assert_eq!(bed.harness.own_get(transaction.raw(), "none").await, None);
    let unit = bed.writes(create("k", bed.instance(), &b"x"[..]));
    let id = unit.message_id;
    let reply = finish(&bed, transaction, unit.clone()).await;
    assert_eq!(letters(&reply.outcomes), "A");
    assert_eq!(read(&bed, "row").await.as_deref(), Some("1"));
    assert_eq!(bed.version("k").await, Some((1, b"x".to_vec())));
    assert!(bed.probe(id).await);
    assert_eq!(letters(&bed.commit(vec![unit]).await), "D");
}

/// A transaction that is dropped leaves nothing, and blocks nobody.
pub async fn dropping_rolls_back(bed: Bed) {
    let Some(mut transaction) = begin(&bed).await else { return };
    put(&bed, &mut transaction, "row", "1").await;
    drop(transaction);
    for round in 0..20 {
        let mut transaction = begin(&bed).await.expect("own SQL");
        put(&bed, &mut transaction, "row", &round.to_string()).await;
    }
    assert_eq!(read(&bed, "row").await, None);
    bed.apply(bed.unit()).await;
}

/// A unit that was handled before rolls the own rows back.
pub async fn duplicate_rolls_back(bed: Bed) {
    let Some(mut transaction) = begin(&bed).await else { return };
    put(&bed, &mut transaction, "row", "1").await;
    let unit = bed.unit();
    assert_eq!(letters(&finish(&bed, transaction, unit.clone()).await.outcomes), "A");
    let mut transaction = begin(&bed).await.expect("own SQL");
    put(&bed, &mut transaction, "row", "2").await;
    put(&bed, &mut transaction, "other", "2").await;
    let reply = finish(&bed, transaction, unit).await;
    assert_eq!(letters(&reply.outcomes), "D");
    assert_eq!((read(&bed, "row").await.as_deref(), read(&bed, "other").await), (Some("1"), None));
}

/// A stale saga, or a lost fence, rolls the own rows back; run again, they commit once.
pub async fn stale_rolls_back(bed: Bed) {
    let Some(mut transaction) = begin(&bed).await else { return };
    put(&bed, &mut transaction, "row", "stale").await;
    drop(transaction);
    let instance = bed.born("k").await;
    let mut transaction = begin(&bed).await.expect("own SQL");
    put(&bed, &mut transaction, "row", "stale").await;
    let mut unit = bed.writes(update("k", instance, 7, &b"bad"[..]));
    unit.sends.push(to_queue("q", bed.message()));
    assert_eq!(letters(&finish(&bed, transaction, unit.clone()).await.outcomes), "S");
    assert_eq!(read(&bed, "row").await, None);
    let mut transaction = begin(&bed).await.expect("own SQL");
    put(&bed, &mut transaction, "row", "fence").await;
    let mut fenced = bed.unit();
    fenced.fence = Some(sagabus_core::Fence { group: "nobody".into(), shard: 1, epoch: 1 });
    assert_eq!(letters(&finish(&bed, transaction, fenced).await.outcomes), "S");
    assert_eq!(read(&bed, "row").await, None);
    let mut transaction = begin(&bed).await.expect("own SQL");
    put(&bed, &mut transaction, "row", "good").await;
    unit.saga = Some(update("k", instance, 1, &b"good"[..]));
    unit.sends.clear();
    assert_eq!(letters(&finish(&bed, transaction, unit).await.outcomes), "A");
    assert_eq!(read(&bed, "row").await.as_deref(), Some("good"));
    assert_eq!(bed.version("k").await, Some((2, b"good".to_vec())));
}

/// A unit with own rows records sends, and takes confirmed rows along, like any other; a failed one keeps them.
pub async fn sends_and_sent_rows(bed: Bed) {
    let Some(transaction) = begin(&bed).await else { return };
    let mut unit = bed.unit();
    unit.sends = vec![to_queue("q", bed.message()), to_queue("q", bed.message())];
    let reply = transaction.finish(bed.batch(false, vec![unit.clone()])).await;
    let Outcome::Applied { outbox, blocked_by_predecessor: false } = &reply.outcomes[0] else { panic!("{reply:?}") };
    assert_eq!(outbox.len(), 2);
    let mut batch = bed.batch(false, vec![unit]);
    batch.sent = outbox[..1].to_vec();
    let reply = begin(&bed).await.expect("own SQL").finish(batch).await;
    assert_eq!(letters(&reply.outcomes), "D");
    let left = bed.count("outbox").await;
    assert_eq!(left, if reply.cleaned { 1 } else { 2 }, "`cleaned` says what happened");
    let mut batch = bed.batch(false, vec![bed.unit()]);
    batch.sent = outbox.clone();
    let reply = begin(&bed).await.expect("own SQL").finish(batch).await;
    assert_eq!((letters(&reply.outcomes).as_str(), reply.cleaned), ("A", true));
    assert_eq!(bed.count("outbox").await, 0);
}

/// Transactions of several processes that read and write the same own row lose nothing.
pub async fn own_rows_are_isolated(bed: Bed) {
    let Some(mut transaction) = begin(&bed).await else { return };
    put(&bed, &mut transaction, "sum", "0").await;
    assert_eq!(letters(&finish(&bed, transaction, bed.unit()).await.outcomes), "A");
    let beds = [bed.other().await, bed.other().await];
    let work = beds.iter().map(|bed| async move {
        let (mut done, mut tries) = (0, 0);
        while done < 10 {
            tries += 1;
            assert!(tries < 5_000, "never applied");
            // through a saga, so that the version decides where the database itself does not serialise
            let before = bed.version("sum").await;
            let mut transaction = begin(bed).await.expect("own SQL");
            let sum = bed.harness.own_get(transaction.raw(), "sum").await.expect("a row");
            let next = sum.parse::<u32>().expect("a number") + 1;
            put(bed, &mut transaction, "sum", &next.to_string()).await;
            let row = bed.store.admin().saga(crate::store::KIND, "sum").await;
            let instance = row.ok().flatten().map(|row| row.instance);
            let unit = match (before, instance) {
                (Some((version, _)), Some(instance)) => bed.writes(update("sum", instance, version, &b"x"[..])),
                _ => bed.writes(create("sum", bed.instance(), &b"x"[..])),
            };
            if finish(bed, transaction, unit).await.outcomes[0].is_applied() {
                done += 1;
            }
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(read(&bed, "sum").await.as_deref(), Some("20"));
    assert_eq!(bed.version("sum").await.map(|(version, _)| version), Some(20));
}

/// Batches and own transactions of one key take turns: each sees what the other has committed.
pub async fn batches_and_transactions_alternate(bed: Bed) {
    let Some(transaction) = begin(&bed).await else { return };
    drop(transaction);
    let instance = bed.born("k").await;
    for version in (1..20).step_by(2) {
        bed.apply(bed.writes(update("k", instance, version, &b"batch"[..]))).await;
        let mut transaction = begin(&bed).await.expect("own SQL");
        put(&bed, &mut transaction, &format!("row{version}"), "x").await;
        let unit = bed.writes(update("k", instance, version + 1, &b"own"[..]));
        assert_eq!(letters(&finish(&bed, transaction, unit).await.outcomes), "A");
    }
    assert_eq!(bed.version("k").await, Some((21, b"own".to_vec())));
}

/// Sends enlisted in a caller's own transaction leave if and only if it commits: joined.
pub async fn enlisted_sends_are_joined(bed: Bed) {
    if bed.queues(&["q"]).await.is_none() || !enlists(&bed, true).await {
        return;
    }
    assert_eq!((bed.queue("q").await.len(), bed.count("outbox").await), (1, 0));
    assert_eq!(bed.dead().await.len(), 1, "the one to an unknown queue");
}

/// Likewise into the outbox, where the relay finds them.
pub async fn enlisted_sends_are_recorded(bed: Bed) {
    if !enlists(&bed, false).await {
        return;
    }
    let rows = bed.store.outbox_own(&bed.owner, OutboxId(0), 10).await.expect("own rows");
    assert_eq!(rows.iter().map(|row| row.outgoing.to.name()).collect::<Vec<_>>(), ["q", "nowhere"]);
}

/// Enlists two sends in a transaction that is dropped, and two in one that commits.
async fn enlists(bed: &Bed, joined: bool) -> bool {
    for commits in [false, true] {
        let Some(mut transaction) = begin(bed).await else { return false };
        put(bed, &mut transaction, "row", "1").await;
        let sends = vec![to_queue("q", bed.message()), to_queue("nowhere", bed.message())];
        bed.store.enlist(transaction.raw(), &bed.owner, joined, sends).await.expect("enlist");
        if commits {
            let unit = bed.unit_of("", bed.id(), Gate::None);
            let reply = transaction.finish(bed.batch(joined, vec![unit])).await;
            assert_eq!(letters(&reply.outcomes), "A");
        }
    }
    assert_eq!((read(bed, "row").await.as_deref(), bed.inbox().await), (Some("1"), 0));
    true
}

/// A connection of another backend is refused.
pub async fn a_foreign_connection_is_refused(bed: Bed) {
    let mut foreign = 5_u8;
    let sends = vec![to_queue("q", bed.message())];
    let error = bed.store.enlist(&mut foreign, &bed.owner, false, sends).await.expect_err("refused");
    assert!(error.is_invalid() || error.is_unsupported(), "{error:?}");
    assert_eq!(bed.count("outbox").await, 0);
}
