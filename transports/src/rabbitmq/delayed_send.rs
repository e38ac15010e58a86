//! Sending with a delay.

use super::{
    delay_topology,
    encode::{Wire, wire},
    names::short,
    publish_channel::PublishOutcome,
    transport::RabbitMqTransport,
};
use sagabus_core::{Destination, Error, ErrorKind, Outgoing, Result, SendOutcome};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl RabbitMqTransport {
    /// Through the [delay_topology]; one outcome each.
    pub(super) async fn send_through_delays(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        let queues: BTreeSet<&str> = batch.iter().filter_map(|(outgoing, _)| queue(outgoing)).collect();
        let refused = match self.refusals(&queues).await {
            Ok(refused) => refused,
            Err(error) => return vec![SendOutcome::Retry(error); batch.len()],
        };
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut wires = Vec::with_capacity(batch.len());
        for (outgoing, delay) in batch {
            outcomes.push(match queue(outgoing).map(|queue| (queue, refused.get(queue))) {
                None => Some(SendOutcome::Unroutable("only what is sent can be delayed, not what is published".into())),
                Some((_, Some(refusal))) => Some(refusal.clone()),
                Some((queue, None)) => match self.delayed_wire(outgoing, queue, *delay) {
                    Ok(wire) => {
                        wires.push(wire);
                        None
                    }
                    Err(error) => Some(SendOutcome::Unroutable(error.to_string())),
                },
            });
        }
        let mut outcomes_of_publish = self.publish(wires).await.into_iter();
        let mut published = || match outcomes_of_publish.next() {
            Some(PublishOutcome::Done) => SendOutcome::Done,
            Some(PublishOutcome::Retry(error)) => SendOutcome::Retry(error),
            Some(PublishOutcome::Returned) => retry("the exchanges for delays lead nowhere: they are made again"),
            Some(PublishOutcome::Unknown(error)) => SendOutcome::Unknown(error),
            None => SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome")),
        };
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(&mut published)).collect()
    }

    fn delayed_wire(&self, outgoing: &Outgoing, queue: &str, delay: Duration) -> Result<Wire> {
        if delay > delay_topology::MAX_DELAY {
            return Err(Error::invalid(format!(
                "a delay of {delay:?}: the longest is {:?}",
                delay_topology::MAX_DELAY
            )));
        }
        let names = &self.manager.names;
        let mut wire = wire(outgoing, names, &self.exchanges)?;
        let (level, key) = delay_topology::route(delay, &names.queue(queue));
        (wire.exchange, wire.routing_key) = (short(names.delay(level))?, short(&key)?);
        Ok(wire)
    }

    /// Queues that do not exist, and what that means: one whose endpoint is on the list comes back.
    async fn refusals(&self, queues: &BTreeSet<&str>) -> Result<BTreeMap<String, SendOutcome>> {
        let found = self.manager.ensure_delays(queues).await?;
        let gone: Vec<&str> = queues.iter().zip(found).filter(|(_, found)| !found).map(|(queue, _)| *queue).collect();
        if gone.is_empty() {
            return Ok(BTreeMap::new());
        }
        let destinations: Vec<Destination> =
            gone.iter().map(|queue| Destination::Queue((*queue).to_string())).collect();
        let registered = self.manager.find_registered(&destinations.iter().collect::<Vec<_>>()).await?;
        let refusal = |(queue, registered): (&str, bool)| {
            let outcome = match registered {
                true => retry(&format!("queue {queue} is missing, though its endpoint was not retired")),
                false => SendOutcome::Unroutable(format!("queue {queue} does not exist")),
            };
            (queue.to_string(), outcome)
        };
        Ok(gone.into_iter().zip(registered).map(refusal).collect())
    }
}

fn queue(outgoing: &Outgoing) -> Option<&str> {
    match &outgoing.to {
        Destination::Queue(queue) => Some(queue),
        Destination::Topic(_) => None,
    }
}

fn retry(text: &str) -> SendOutcome {
    SendOutcome::Retry(Error::new(ErrorKind::Transient, text))
}
