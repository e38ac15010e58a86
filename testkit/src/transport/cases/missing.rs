//! What a transport says it lacks is refused, not ignored.

use crate::transport::Fixture;
use sagabus_core::{Capabilities, ReceiveOptions, Topology};

/// The capabilities say the same every time and in every process.
pub async fn capabilities_are_constant(fixture: Fixture) {
    let first: Capabilities = fixture.transport.capabilities();
    assert_eq!(fixture.again().await.transport.capabilities(), first);
    assert!(first.max_message >= 64 << 10, "less than a usual message fits");
}

/// Order is kept, or refused.
pub async fn order_is_kept_or_refused(fixture: Fixture) {
    if !fixture.transport.capabilities().ordered {
        return no_order(&fixture).await;
    }
    fixture.queue("q", &[]).await;
    fixture.ordered("q", 1).await.0.close().await;
}

/// Topics are there, or refused.
pub async fn topics_are_there_or_refused(fixture: Fixture) {
    if !fixture.transport.capabilities().topics {
        return no_topics(&fixture).await;
    }
    fixture.queue("q", &["kit.event"]).await;
}

/// Reply queues are there, or refused.
pub async fn reply_queues_are_there_or_refused(fixture: Fixture) {
    if !fixture.transport.capabilities().reply_queues {
        return no_reply_queues(&fixture).await;
    }
    let topology = Topology { queue: Some("reply.2".into()), temporary: true, ..Topology::default() };
    fixture.transport.provision(&topology).await.unwrap();
}

/// Subscriptions without a queue make no sense.
pub async fn subscriptions_need_a_queue(fixture: Fixture) {
    let topology = Topology { subscriptions: vec!["kit.event".into()], ..Topology::default() };
    let error = fixture.transport.provision(&topology).await.unwrap_err();
    assert!(error.is_invalid() || error.is_unsupported(), "{error:?}");
}

pub(super) async fn no_order(fixture: &Fixture) {
    let topology = Topology { queue: Some("q".into()), ordered: true, ..Topology::default() };
    assert!(fixture.transport.provision(&topology).await.unwrap_err().is_unsupported());
    fixture.queue("q", &[]).await;
    let options = ReceiveOptions { ordered: true, ..fixture.options("q", 1) };
    assert!(fixture.transport.receive(options).await.err().is_some_and(|e| e.is_unsupported()));
}

pub(super) async fn no_topics(fixture: &Fixture) {
    let topology = Topology { queue: Some("q".into()), subscriptions: vec!["kit.event".into()], ..Topology::default() };
    assert!(fixture.transport.provision(&topology).await.unwrap_err().is_unsupported());
}

pub(super) async fn no_reply_queues(fixture: &Fixture) {
    let topology = Topology { queue: Some("reply.1".into()), temporary: true, ..Topology::default() };
    assert!(fixture.transport.provision(&topology).await.unwrap_err().is_unsupported());
}
