//! Every statement of the hot path finds its rows through an index, without statistics.

use super::fixture::Fixture;
use crate::sqlite::sql;
use sagabus_core::{
    Disposition, Due, DueQuery, Fence, Gate, InstanceId, LeaseRequest, Leases as _, LoadRequest, MessageId, OutboxId,
    Outgoing, ParkedUntil, Queues as _, RowGate, RowTable, SHARDS, SagaAddress, SagaChange, SagaLookup, Store as _,
    StoreAdmin as _, TimerChange, TimerId, Timestamp, UnitOfWork,
};
use std::{sync::Arc, time::Duration};

/// Whole tables are read on purpose by these.
const MAY_SCAN: &[&str] = &[
    "select 'saga',count(*)",
    "sagabus_schema",
    "sqlite_schema",
    "pragma_",
    "delete from attempt where (endpoint,handler,message_id) in (select",
    "from node where gone",
    "delete from subscription",
    "select name from queue_name",
    // retention goes through the few names of queues
    "from queue_name n",
];

#[tokio::test]
async fn nothing_hot_scans_a_table() {
    let fixture = Fixture::new().await;
    everything(&fixture).await;
    let mut stranger = fixture.stranger().await;
    let texts: Vec<String> = sql::recorded().lock().unwrap().iter().cloned().collect();
    assert!(texts.len() > 60, "only {} statements were seen", texts.len());
    let mut bad = Vec::new();
    for text in &texts {
        if MAY_SCAN.iter().any(|part| text.contains(part))
            || text.starts_with("pragma")
            || text.starts_with("savepoint")
        {
            continue;
        }
        for line in sql::folded(&mut stranger, text).await {
            let scans = line.strip_prefix("SCAN ").is_some_and(|what| !constant(what));
            if scans || line.contains("TEMP B-TREE FOR ORDER BY") || line.contains("AUTOMATIC") {
                bad.push(format!("{line}: {}", text.chars().take(400).collect::<String>()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    fixture.close().await;
}

/// The values that were bound, or a subquery over them.
fn constant(what: &str) -> bool {
    what.starts_with("w")
        || what == "owner"
        || what.contains("VALUES")
        || what.contains("CONSTANT")
        || what.starts_with("(subquery")
}

/// Runs every statement at least once.
async fn everything(fixture: &Fixture) {
    let (store, instance) = (&fixture.store, InstanceId(fixture.runtime.uuid()));
    store.subscribe("q", &["t".into()]).await.unwrap();
    let request = LeaseRequest {
        group: "g".into(),
        node: fixture.owner.node,
        ttl: Duration::from_secs(9),
        shards: true,
        release: Vec::new(),
    };
    let lease = store.heartbeat(&request).await.unwrap();
    let mut unit = fixture.create("k", instance);
    unit.fence = Some(Fence { group: "g".into(), shard: lease.shards[0].0, epoch: lease.shards[0].1 });
    unit.has_attempt_row = true;
    unit.saga.as_mut().unwrap().aliases.push(("a".into(), "v".into()));
    unit.sends.push(Outgoing { to: sagabus_core::Destination::Topic("t".into()), message: fixture.message() });
    unit.sends.push(Outgoing { to: sagabus_core::Destination::Queue("nowhere".into()), message: foreign(fixture) });
    unit.timers.push(timer(fixture, instance));
    let (kind, key): (Arc<str>, String) = ("shop/order".into(), "k".into());
    unit.timers.push(TimerChange::Cancel { kind: kind.clone(), key: key.clone(), id: TimerId(fixture.runtime.uuid()) });
    unit.timers.push(TimerChange::CancelType {
        kind: kind.clone(),
        key: key.clone(),
        instance,
        message_type: "none".into(),
    });
    let mut old = fixture.unit();
    old.message_id = MessageId::from_foreign("old");
    let mut units = vec![unit, old];
    let message = Arc::new(fixture.message());
    let line = || "line".to_string();
    for disposition in [
        Disposition::Deferred {
            message: message.clone(),
            key: Some(line()),
            attempts: 1,
            delay: Duration::ZERO,
            reason: "r".into(),
        },
        Disposition::Parked { message: message.clone(), attempts: 1, until: ParkedUntil::KeyUnblocked { key: line() } },
        Disposition::Parked {
            message: message.clone(),
            attempts: 1,
            until: ParkedUntil::Saga { kind: kind.clone(), key: "other".into(), at_most: Duration::ZERO },
        },
        Disposition::DeadLettered { message, attempts: 1, reason: "r".into(), detail: Vec::new() },
    ] {
        let mut unit = fixture.unit();
        unit.disposition = disposition;
        units.push(unit);
    }
    assert_eq!(fixture.commit(units).await, "AAAAAA");
    assert_eq!(fixture.commit(vec![fixture.update("k", instance, 1), fixture.update("x", instance, 1)]).await, "AS");
    let mut split = fixture.batch(vec![fixture.unit()]);
    split.joined = false;
    split.sent = vec![OutboxId(99)];
    let mut keyed = fixture.message();
    keyed.headers.order_key = Some("line".into());
    split.units[0].sends.push(Outgoing { to: sagabus_core::Destination::Queue("q".into()), message: keyed });
    assert!(store.commit(split).await.outcomes[0].is_applied());
    loads(fixture, instance).await;
    rows(fixture).await;
    let ends = [
        SagaChange::Complete { instance, version: 2, keep: None },
        SagaChange::Complete { instance, version: 0, keep: None },
    ];
    for change in ends {
        assert_eq!(fixture.commit(vec![fixture.writes("k", change)]).await, "A");
    }
    let mut known = fixture.unit();
    known.message_id = MessageId::from_foreign("old");
    let fenced = UnitOfWork { fence: Some(Fence { group: "g".into(), shard: 0, epoch: 99 }), ..fixture.unit() };
    assert_eq!(fixture.commit(vec![known, fenced]).await, "DS");
    outside(fixture).await;
}

fn foreign(fixture: &Fixture) -> sagabus_core::Envelope {
    let mut message = fixture.message();
    message.headers.message_id = MessageId::from_foreign("lost");
    message
}

fn timer(fixture: &Fixture, instance: InstanceId) -> TimerChange {
    let mut message = fixture.message();
    message.headers.saga = Some(SagaAddress { kind: "shop/order".into(), key: "k".into(), instance });
    TimerChange::Set { id: TimerId(fixture.runtime.uuid()), due: Due::At(Timestamp(1)), message: Box::new(message) }
}

async fn loads(fixture: &Fixture, instance: InstanceId) {
    let kind: Arc<str> = "shop/order".into();
    let address = SagaAddress { kind: kind.to_string(), key: "k".into(), instance };
    let request = LoadRequest {
        endpoint: "shop".into(),
        probes: vec![("order".into(), fixture.id()), ("order".into(), MessageId::from_foreign("old"))],
        sagas: vec![
            SagaLookup::Key { kind: kind.clone(), key: "k".into() },
            SagaLookup::Alias { kind, alias: "a".into(), value: "v".into() },
            SagaLookup::Instance(address),
        ],
        blocked_keys: vec![("order".into(), "line".into())],
    };
    let reply = fixture.store.load(request).await.unwrap();
    assert!(reply.sagas.iter().all(Option::is_some) && reply.blocked_keys[0] && reply.probes == [false, true]);
}

/// Opens the gate of a row of every table.
async fn rows(fixture: &Fixture) {
    let dead: Vec<i64> =
        fixture.store.dead_letters("shop", 0, 9).await.unwrap().iter().map(|letter| letter.id).collect();
    assert!(fixture.store.retry_dead_letters("shop", &dead).await.unwrap() > 0);
    for table in RowTable::DUE {
        let query = DueQuery { endpoint: "shop".into(), table, shards: (0..SHARDS).collect(), after: None, limit: 9 };
        let page = fixture.store.due(&query).await.unwrap();
        let row = page.rows.first().unwrap_or_else(|| panic!("nothing of {} is due", table.name()));
        let unit = |gate| UnitOfWork::new(row.handler.clone(), row.message.headers.message_id, Gate::Row(gate));
        assert_eq!(fixture.commit(vec![unit(row.gate)]).await, "A");
        assert_eq!(fixture.commit(vec![unit(row.gate)]).await, "D");
    }
    let some = fixture.store.read("q", &(0..SHARDS).collect::<Vec<_>>(), 0, 9).await.unwrap();
    fixture.store.read("q", &[0, 5], 0, 9).await.unwrap();
    let gate = Gate::Row(RowGate { table: RowTable::Queue, id: some[0].id, token: 0 });
    let unit = UnitOfWork::new("order".into(), some[0].message_id, gate);
    assert_eq!(fixture.commit(vec![unit.clone()]).await, "A");
    assert_eq!(fixture.commit(vec![unit]).await, "D");
    fixture.store.delete("q", &[some[1].id]).await.unwrap();
}

/// What comes from outside of the units.
async fn outside(fixture: &Fixture) {
    let store = &fixture.store;
    store.enqueue(&[Outgoing { to: sagabus_core::Destination::Queue("q".into()), message: foreign(fixture) }]).await;
    let rows = store.outbox_own(&fixture.owner, OutboxId(0), 9).await.unwrap();
    let other = sagabus_core::Owner { node: sagabus_core::NodeId(fixture.runtime.uuid()), ..fixture.owner.clone() };
    assert_eq!(store.outbox_orphans(&other, 9).await.unwrap().len(), rows.len());
    store.outbox_dead_letter(&other, &[(rows[0].id, "r".into())]).await.unwrap();
    store.outbox_delete(&[rows[0].id]).await.unwrap();
    store.count_attempt("shop", "order", fixture.id()).await.unwrap();
    let (id, query) = (TimerId(fixture.runtime.uuid()), (0..9).map(i64::from).collect::<Vec<_>>());
    store.timers("shop", None, 9).await.unwrap();
    store.move_timer("shop", id, Timestamp(5)).await.unwrap();
    store.cancel_timer("shop", id).await.unwrap();
    store.discard_dead_letters("shop", &query).await.unwrap();
    store.saga("shop/order", "k").await.unwrap();
    store.saga_keys("shop/order", "", 9).await.unwrap();
    store.counts().await.unwrap();
    store.depth("q").await.unwrap();
    store.prune(Duration::from_secs(60)).await.unwrap();
    store.leave("g", fixture.owner.node).await.unwrap();
}
