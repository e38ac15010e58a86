//! Messages that nobody can make sense of.

use crate::transport::{Fixture, fixture::ids};
use bytes::Bytes;
use sagabus_core::{Limits, MessageId, Settle};

fn raw() -> Vec<Bytes> {
    vec![
        Bytes::new(),
        Bytes::from_static(b"{"),
        Bytes::from_static(b"null"),
        Bytes::from_static(b"[]"),
        Bytes::from_static(b"{\"id\":\"x\"}"),
        Bytes::from_static(b"\xff\xfe\x00\x01"),
        Bytes::from_static(b"\xef\xbb\xbf{}"),
        Bytes::from_static(b"<script>alert(1)</script>"),
        Bytes::from("[".repeat(200_000)),
        Bytes::from("{\"a\":".repeat(50_000)),
        Bytes::from(format!("{{\"x\":\"{}\"}}", "\u{1f680}".repeat(20_000))),
        Bytes::from_static(&[0xff; 30_000]),
    ]
}

/// Undecodable headers: delivered with the reason, an id of their own, the body untouched, and within the limits.
pub async fn undecodable_headers_are_delivered_as_such(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let mut injected = 0;
    for headers in raw() {
        let id = MessageId(fixture.runtime.uuid());
        if !fixture.harness.inject("q", id, headers, Bytes::from_static(b"body")).await {
            return;
        }
        injected += 1;
    }
    let receiver = fixture.receiver("q", 100).await;
    let got = fixture.take(&receiver, injected).await;
    for delivery in &got {
        assert!(delivery.defect.as_ref().is_some_and(|d| !d.is_empty() && d.len() < 1000), "{:?}", delivery.defect);
        assert_eq!(delivery.message.body, "body");
        delivery.message.check(&Limits::default()).unwrap();
    }
    let mut distinct = ids(&got);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), injected);
    fixture.settle(&receiver, &got, Settle::Done).await;
    fixture.depth("q", 0).await;
}

/// Bad ones between good ones hold nobody up.
pub async fn neighbours_go_on(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let mut good = Vec::new();
    for headers in raw() {
        good.extend(fixture.fill("q", 5).await);
        let id = MessageId(fixture.runtime.uuid());
        if !fixture.harness.inject("q", id, headers, Bytes::new()).await {
            return;
        }
    }
    let receiver = fixture.receiver("q", 10).await;
    let seen = fixture.drain(&receiver, &good).await;
    assert!(good.iter().all(|id| seen[id] == 1));
}

/// An undecodable message is settled and comes again like any other.
pub async fn they_are_settled_like_any_other(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let id = MessageId(fixture.runtime.uuid());
    if !fixture.harness.inject("q", id, Bytes::from_static(b"{"), Bytes::new()).await {
        return;
    }
    let receiver = fixture.receiver("q", 10).await;
    let first = fixture.take(&receiver, 1).await;
    fixture.settle(&receiver, &first, Settle::Return).await;
    let second = fixture.take(&receiver, 1).await;
    assert_eq!(ids(&first), ids(&second), "the made-up id is stable");
    fixture.settle(&receiver, &second, Settle::Done).await;
    fixture.depth("q", 0).await;
}
