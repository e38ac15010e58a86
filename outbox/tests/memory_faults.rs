//! What only the memory store has: faults, under virtual time.

use sagabus_core::{
    CommitBatch, CommitReply, Envelope, Gate, Headers, Intent, LoadRequest, MessageId, NodeId, OutboxId, Outcome,
    Owner, Runtime, Store, UnitOfWork,
};
use sagabus_outbox::memory::{Fault, FaultRates, MemoryStore, Operation, ScratchRows, StoreFaults};
use std::time::Duration;

fn unit(runtime: &Runtime) -> UnitOfWork {
    let mut unit = UnitOfWork::new("order".into(), MessageId(runtime.uuid()), Gate::Inbox);
    let headers = Headers::new(MessageId(runtime.uuid()), "test.message", Intent::Command, runtime.now());
    let to = sagabus_core::Destination::Queue("q".into());
    unit.sends.push(sagabus_core::Outgoing { to, message: Envelope::new(headers, "{}") });
    unit
}

fn owner(runtime: &Runtime) -> Owner {
    Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) }
}

fn batch(owner: &Owner, units: Vec<UnitOfWork>) -> CommitBatch {
    CommitBatch { owner: owner.clone(), joined: false, units, sent: Vec::new() }
}

fn failed(reply: &CommitReply) -> &sagabus_core::Error {
    match &reply.outcomes[..] {
        [Outcome::Failed(error)] => error,
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_does_nothing_and_a_lost_answer_everything() {
    let runtime = Runtime::simulated(1);
    let store = MemoryStore::new(runtime.clone());
    let faults = StoreFaults::new().at(Operation::Commit, 1, Fault::Before).at(Operation::Commit, 2, Fault::After);
    let faulty = store.with_faults(faults.clone());
    let (owner, unit) = (owner(&runtime), unit(&runtime));
    let probe = || async {
        let probes = vec![("order".into(), unit.message_id)];
        let request = LoadRequest { endpoint: "shop".into(), probes, ..LoadRequest::default() };
        store.load(request).await.expect("load").probes[0]
    };

    let reply = faulty.commit(batch(&owner, vec![unit.clone()])).await;
    assert!(failed(&reply).is_transient() && !reply.cleaned);
    assert!(!probe().await);

    let reply = faulty.commit(batch(&owner, vec![unit.clone()])).await;
    assert!(failed(&reply).is_unknown() && !reply.cleaned);
    assert!(probe().await);
    assert_eq!(store.outbox_own(&owner, OutboxId(0), 9).await.expect("own rows").len(), 1);

    let reply = faulty.commit(batch(&owner, vec![unit.clone()])).await;
    assert!(matches!(reply.outcomes[..], [Outcome::Duplicate]));
    assert_eq!((faults.hits(), faults.calls(Some(Operation::Commit))), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn every_call_can_fail_and_heals() {
    let runtime = Runtime::simulated(2);
    let rates = FaultRates { before: 1000, ..FaultRates::default() };
    let faults = StoreFaults::seeded(2, rates);
    let store = MemoryStore::new(runtime.clone()).with_faults(faults.clone());
    assert!(store.now().await.expect_err("now").is_transient());
    assert!(store.begin().await.err().expect("begin").is_transient());
    assert!(store.leases().leave("g", NodeId(runtime.uuid())).await.expect_err("leave").is_transient());
    assert!(store.admin().counts().await.expect_err("counts").is_transient());
    let queues = store.queues().expect("queues");
    assert!(queues.declare("q").await.expect_err("declare").is_transient());
    assert!(matches!(
        queues.enqueue(&[unit(&runtime).sends.remove(0)]).await[..],
        [sagabus_core::SendOutcome::Retry(_)]
    ));
    assert_eq!((faults.hits(), faults.calls(None)), (6, 6));
    faults.heal();
    store.now().await.expect("healed");
}

#[tokio::test(start_paused = true)]
async fn latency_is_virtual() {
    let runtime = Runtime::simulated(3);
    let rates = FaultRates { slow: 1000, latency: Duration::from_secs(3600), ..FaultRates::default() };
    let store = MemoryStore::new(runtime.clone()).with_faults(StoreFaults::seeded(3, rates));
    for _ in 0..20 {
        store.now().await.expect("now");
    }
    assert!(runtime.elapsed() > Duration::from_secs(3600), "{:?}", runtime.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_held_too_long_loses_its_turn() {
    let runtime = Runtime::simulated(4);
    let store = MemoryStore::configured(runtime.clone(), 1, Duration::from_secs(2));
    let owner = owner(&runtime);
    let write = |transaction: &mut Box<dyn sagabus_core::Transaction>, value: &str| {
        transaction.raw().downcast_mut::<ScratchRows>().expect("scratch rows").put("row", value);
    };
    let mut slow = store.begin().await.expect("begin");
    write(&mut slow, "slow");
    let before = runtime.elapsed();
    let mut next = store.open_again().begin().await.expect("begin");
    let waited = runtime.elapsed() - before;
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
    write(&mut next, "next");
    let reply = slow.finish(batch(&owner, vec![unit(&runtime)])).await;
    assert!(failed(&reply).is_transient(), "its unit runs again");
    let reply = next.finish(batch(&owner, vec![unit(&runtime)])).await;
    assert!(reply.outcomes[0].is_applied());
    assert_eq!(store.scratch()["row"], b"next");

    // a lost answer: everything is there
    let faulty = store.with_faults(StoreFaults::new().at(Operation::Finish, 1, Fault::After));
    let mut lost = faulty.begin().await.expect("begin");
    write(&mut lost, "lost");
    let reply = lost.finish(batch(&owner, vec![unit(&runtime)])).await;
    assert!(failed(&reply).is_unknown());
    assert_eq!(store.scratch()["row"], b"lost");
    drop(store.begin().await.expect("the turn is free"));
}
