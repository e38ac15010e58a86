//! What every transport does the same way.

use sagabus_core::{Capabilities, Error, Outgoing, Result, SendOutcome, Topology, check_name};

/// Refuses a topology that asks for more than there is, and names that no backend should ever see.
pub(crate) fn refuse(topology: &Topology, capabilities: &Capabilities) -> Result<()> {
    if let Some(queue) = &topology.queue {
        check_name("queue", queue)?;
    }
    for topic in &topology.subscriptions {
        check_name("topic", topic)?;
    }
    if topology.queue.is_none() && !topology.subscriptions.is_empty() {
        return Err(Error::invalid("subscriptions need a queue"));
    }
    let wanted = [
        (topology.ordered && !capabilities.ordered, "keeps no order"),
        (!topology.subscriptions.is_empty() && !capabilities.topics, "has no topics"),
        (topology.temporary && !capabilities.reply_queues, "has no reply queues"),
    ];
    match wanted.iter().find(|(missing, _)| *missing) {
        Some((_, what)) => Err(Error::unsupported(format!("this transport {what}"))),
        None => Ok(()),
    }
}

/// Sends what is within the size limit; the rest is unroutable, since trying again does not help.
pub(crate) async fn send_within(
    batch: &[Outgoing],
    limit: usize,
    send: impl AsyncFnOnce(&[Outgoing]) -> Vec<SendOutcome>,
) -> Vec<SendOutcome> {
    let too_large = |outgoing: &Outgoing| limit != usize::MAX && size(outgoing) > limit;
    if !batch.iter().any(too_large) {
        return send(batch).await;
    }
    let within: Vec<Outgoing> = batch.iter().filter(|o| !too_large(o)).cloned().collect();
    let mut outcomes = send(&within).await.into_iter();
    let refused = |outgoing: &Outgoing| {
        SendOutcome::Unroutable(format!(
            "message {} has {} bytes with its headers, this transport takes {limit}",
            outgoing.message.headers.message_id,
            size(outgoing)
        ))
    };
    batch
        .iter()
        .map(|outgoing| match too_large(outgoing) {
            true => refused(outgoing),
            false => outcomes
                .next()
                .unwrap_or_else(|| SendOutcome::Unknown(Error::new(sagabus_core::ErrorKind::Unknown, "no outcome"))),
        })
        .collect()
}

fn size(outgoing: &Outgoing) -> usize {
    let headers = outgoing.message.headers.to_json().map_or(0, |json| json.len());
    headers + outgoing.message.body.len()
}
