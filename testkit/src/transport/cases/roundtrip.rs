//! What is sent arrives, byte for byte.

use crate::transport::Fixture;
use bytes::Bytes;
use sagabus_core::{
    Destination, Envelope, Headers, InstanceId, Intent, MessageId, Outgoing, SagaAddress, SendOutcome, Timestamp,
    UserHeader,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

async fn there_and_back(fixture: &Fixture, message: Envelope) {
    fixture.queue("q", &[]).await;
    fixture.send("q", vec![message.clone()]).await;
    let receiver = fixture.receiver("q", 10).await;
    let delivery = fixture.take(&receiver, 1).await.remove(0);
    assert_eq!(delivery.message.headers, message.headers);
    assert!(delivery.message.body == message.body, "the body differs");
    assert!(delivery.defect.is_none() && !delivery.suspect && !delivery.anonymous);
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// No body at all is a body.
pub async fn empty_body(fixture: Fixture) {
    there_and_back(&fixture, fixture.message("")).await;
}

/// One byte, and a NUL at that.
pub async fn one_byte(fixture: Fixture) {
    there_and_back(&fixture, fixture.message(Bytes::from_static(&[0]))).await;
}

/// Every byte value.
pub async fn binary_body(fixture: Fixture) {
    there_and_back(&fixture, fixture.message((0..=255).collect::<Vec<u8>>())).await;
}

/// 256 KiB, or what the transport takes.
pub async fn large_body(fixture: Fixture) {
    let size = (256 << 10).min(fixture.transport.capabilities().max_message.saturating_sub(2048));
    there_and_back(&fixture, fixture.message(bytes(size))).await;
}

/// The largest body that an endpoint accepts.
pub async fn largest_body(fixture: Fixture) {
    let size =
        sagabus_core::Limits::default().body.min(fixture.transport.capabilities().max_message.saturating_sub(2048));
    there_and_back(&fixture, fixture.message(bytes(size))).await;
}

/// What is too large is refused for good, and its neighbours in the batch are not.
pub async fn too_large_is_refused(fixture: Fixture) {
    let limit = fixture.transport.capabilities().max_message;
    if limit > 64 << 20 {
        // no limit of its own: the endpoint's is what counts
        return there_and_back(&fixture, fixture.message(bytes(4 << 20))).await;
    }
    fixture.queue("q", &[]).await;
    let to = Destination::Queue("q".into());
    let messages = [fixture.message("a"), fixture.message(bytes(limit + 1)), fixture.message("b")];
    let batch = messages.map(|message| Outgoing { to: to.clone(), message });
    let outcomes = fixture.transport.send_batch(&batch).await;
    assert!(outcomes[0].is_done() && outcomes[2].is_done(), "{outcomes:?}");
    assert!(matches!(outcomes[1], SendOutcome::Unroutable(_)), "{outcomes:?}");
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, 2).await;
    assert_eq!(got.len(), 2);
    fixture.nothing(&receiver).await;
}

fn with_header(fixture: &Fixture, name: &str, value: &str, propagate: bool) -> Envelope {
    let mut message = fixture.message("x");
    message.headers.user.insert(name.into(), UserHeader { value: value.into(), propagate });
    message
}

/// Header values in every script, with quotes and line ends.
pub async fn unicode_headers(fixture: Fixture) {
    let value = "grüße \u{1f680} \u{202e}abc \"'`;-- \r\n\t\u{0} 漢字 العربية";
    there_and_back(&fixture, with_header(&fixture, "schlüssel", value, true)).await;
}

/// An empty value stays empty, and is not a missing one.
pub async fn empty_header_value(fixture: Fixture) {
    there_and_back(&fixture, with_header(&fixture, "empty", "", false)).await;
}

/// As many user headers as are allowed.
pub async fn many_headers(fixture: Fixture) {
    let mut message = fixture.message("x");
    for n in 0..64 {
        let header = UserHeader { value: format!("value {n}"), propagate: n % 2 == 0 };
        message.headers.user.insert(format!("header-{n}"), header);
    }
    there_and_back(&fixture, message).await;
}

/// As large headers as are allowed.
pub async fn large_headers(fixture: Fixture) {
    there_and_back(&fixture, with_header(&fixture, "large", &"x".repeat(15 << 10), false)).await;
}

/// Every field that a message can have.
pub async fn every_field(fixture: Fixture) {
    let id = || MessageId(fixture.runtime.uuid());
    let address = |key: &str| SagaAddress {
        kind: "shop/order".into(),
        key: key.into(),
        instance: InstanceId(fixture.runtime.uuid()),
    };
    let mut headers = Headers::new(id(), "kit.full", Intent::Reply, Timestamp(1_700_000_000_123_456));
    headers.content_type = "application/x-kit".into();
    headers.correlation_id = Some("corr ü".into());
    headers.conversation_id = fixture.runtime.uuid();
    headers.causation_id = Some(id());
    headers.reply_to = Some("reply.queue".into());
    headers.expires_at = Some(fixture.runtime.now().plus(Duration::from_secs(3600)));
    headers.order_key = Some("order '1'".into());
    headers.saga = Some(address("a"));
    headers.originator = Some(address(""));
    headers.attempts = 7;
    headers.first_attempt = true;
    headers.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    headers.tracestate = Some("a=1,b=2".into());
    for name in ["tenant", "sagabus", "sagabus-first", "traceparent"] {
        headers.user.insert(name.into(), UserHeader { value: "sent-at=1;first".into(), propagate: true });
    }
    there_and_back(&fixture, Envelope::new(headers, "x")).await;
}

/// Whoever belongs to the conversation that its cause began, to another one, or began its own.
pub async fn conversations(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let cause = MessageId(fixture.runtime.uuid());
    let mut sent = BTreeMap::new();
    for (cause, conversation) in [(None, None), (Some(cause), Some(cause)), (Some(cause), None)] {
        let mut message = fixture.message("x");
        message.headers.causation_id = cause;
        message.headers.conversation_id = conversation.unwrap_or(message.headers.message_id).0;
        sent.insert(message.headers.message_id, message.headers.clone());
        fixture.send("q", vec![message]).await;
    }
    let receiver = fixture.receiver("q", 10).await;
    let got = fixture.take(&receiver, sent.len()).await;
    let got: BTreeMap<_, _> = got.iter().map(|d| (d.message.headers.message_id, d.message.headers.clone())).collect();
    assert_eq!(got, sent);
}

/// The id is the sender's, also if it is no UUIDv7.
pub async fn foreign_ids_are_kept(fixture: Fixture) {
    let mut message = fixture.message("x");
    message.headers.message_id = MessageId::from_foreign("order-1");
    there_and_back(&fixture, message).await;
}

/// What a receiver does to a delivery is not seen when it comes again.
pub async fn a_redelivery_is_as_sent(fixture: Fixture) {
    fixture.queue("q", &[]).await;
    let message = with_header(&fixture, "a", "1", false);
    fixture.send("q", vec![message.clone()]).await;
    let receiver = fixture.receiver("q", 10).await;
    let mut first = fixture.take(&receiver, 1).await;
    let mine = Arc::make_mut(&mut first[0].message);
    mine.headers.user.clear();
    mine.headers.attempts = 9;
    fixture.settle(&receiver, &first, sagabus_core::Settle::Return).await;
    assert_eq!(*fixture.take(&receiver, 1).await[0].message, message);
}
