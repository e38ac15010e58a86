//! Who holds what, and what becomes of those who lost it.

use crate::transport::{
    Fixture,
    fixture::{ids, sorted},
};
use sagabus_core::{ReceiveOptions, RowTable, Settle};

/// A transport in a database gives every delivery its row as a gate; any other gives none.
pub async fn gates_are_rows_of_the_queue(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    fixture.fill("q", 20).await;
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, 20).await;
    if fixture.transport.database().is_none() {
        assert!(got.iter().all(|d| d.gate.is_none() && d.fence.is_none()));
        return;
    }
    let mut rows: Vec<i64> = got.iter().map(|d| d.gate.unwrap().id).collect();
    assert!(got.iter().all(|d| d.gate.unwrap().table == RowTable::Queue && d.gate.unwrap().token == 0));
    rows.dedup();
    assert_eq!(rows.len(), 20, "one row each, in the order of the rows");
    assert!(rows.is_sorted());
    assert!(got.iter().all(|d| d.fence.is_none()), "order was not asked for");
}

/// Ordered, in a database: every delivery carries the lease under which it was read, and a new owner has a new epoch.
pub async fn fences_change_with_the_owner(fixture: Fixture) {
    if fixture.transport.database().is_none() || !fixture.transport.capabilities().ordered {
        return;
    }
    fixture.queue("q", &[]).await;
    fixture.send("q", fixture.keyed("k", 0..3)).await;
    let first = fixture.again().await;
    let (receiver, _) = first.ordered("q", 1).await;
    let before = first.take(&receiver, 1).await.remove(0).fence.expect("a fence");
    assert_eq!((&*before.group, before.shard), ("queue:q", sagabus_core::shard_of(b"k")));
    drop((receiver, first));
    let (second, _) = fixture.ordered("q", 1).await;
    let after = fixture.take(&second, 1).await.remove(0).fence.expect("a fence");
    assert_eq!((&before.group, before.shard), (&after.group, after.shard));
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");
}

/// A node that was cut off loses what it held: it comes again elsewhere, and the node's own tokens mean nothing.
pub async fn stale_tokens_are_ignored(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 10).await;
    let first = fixture.again().await;
    let options = ReceiveOptions { window: 10, ..first.options("q", 10) };
    let node = options.node;
    let stale = first.transport.receive(options).await.unwrap();
    let held = first.take(&stale, 10).await;
    if !fixture.harness.cut(node).await {
        return;
    }
    let second = fixture.again().await;
    let receiver = second.receiver("q", 100).await;
    let got = second.take(&receiver, 10).await;
    assert_eq!(sorted(ids(&got)), sorted(sent));
    assert!(got.iter().all(|d| d.suspect));
    first.settle(&stale, &held[..5], Settle::Done).await;
    first.settle(&stale, &held[5..], Settle::Return).await;
    fixture.depth("q", 10).await;
    second.nothing(&receiver).await;
    second.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 0).await;
}

/// A node that was cut off and comes back works again, also alone: what it had in flight comes again, once.
pub async fn a_node_recovers(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let sent = fixture.fill("q", 10).await;
    let options = fixture.options("q", 20);
    let node = options.node;
    let receiver = fixture.transport.receive(options).await.unwrap();
    let held = fixture.take(&receiver, 10).await;
    if !fixture.harness.cut(node).await {
        return;
    }
    // the lease must have lapsed before the cut is mended: another consumer sees that
    let other = fixture.again().await;
    let witness = other.receiver("q", 20).await;
    let moved = other.take(&witness, 10).await;
    assert_eq!(sorted(ids(&moved)), sorted(sent.clone()));
    witness.stop().await;
    other.settle(&witness, &moved, Settle::Return).await;
    witness.close().await;
    fixture.harness.mend(node).await;
    let mut got = Vec::new();
    while got.len() < 10 {
        match fixture
            .runtime
            .timeout(crate::transport::fixture::PATIENCE, receiver.next(20))
            .await
            .expect("it comes again")
        {
            Ok(deliveries) => got.extend(deliveries),
            // while cut off it may say so
            Err(error) => assert!(!error.is_closed(), "{error:?}"),
        }
    }
    fixture.settle(&receiver, &held, Settle::Done).await;
    assert_eq!(sorted(ids(&got)), sorted(sent));
    fixture.depth("q", 10).await;
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 0).await;
    fixture.nothing(&receiver).await;
}
