//! Sending with a delay.

use super::{
    delays,
    encode::{Wire, wire},
    lane::Verdict,
    names::short,
    transport::RabbitTransport,
};
use sagabus_core::{Destination, Error, ErrorKind, Outgoing, Result, SendOutcome};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl RabbitTransport {
    /// Through the [delays]; one outcome each.
    pub(super) async fn later(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        let queues: BTreeSet<&str> = batch.iter().filter_map(|(outgoing, _)| queue(outgoing)).collect();
        let refused = match self.missing(&queues).await {
            Ok(refused) => refused,
            Err(error) => return vec![SendOutcome::Retry(error); batch.len()],
        };
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut wires = Vec::with_capacity(batch.len());
        for (outgoing, delay) in batch {
            outcomes.push(match queue(outgoing).map(|queue| (queue, refused.get(queue))) {
                None => Some(SendOutcome::Unroutable("only what is sent can be delayed, not what is published".into())),
                Some((_, Some(refusal))) => Some(refusal.clone()),
                Some((queue, None)) => match self.delayed(outgoing, queue, *delay) {
                    Ok(wire) => {
                        wires.push(wire);
                        None
                    }
                    Err(error) => Some(SendOutcome::Unroutable(error.to_string())),
                },
            });
        }
        let mut verdicts = self.publish(wires).await.into_iter();
        let mut published = || match verdicts.next() {
            Some(Verdict::Done) => SendOutcome::Done,
            Some(Verdict::Retry(error)) => SendOutcome::Retry(error),
            Some(Verdict::Returned) => retry("the exchanges for delays lead nowhere: they are made again"),
            Some(Verdict::Unknown(error)) => SendOutcome::Unknown(error),
            None => SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome")),
        };
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(&mut published)).collect()
    }

    fn delayed(&self, outgoing: &Outgoing, queue: &str, delay: Duration) -> Result<Wire> {
        if delay > delays::LONGEST {
            return Err(Error::invalid(format!("a delay of {delay:?}: the longest is {:?}", delays::LONGEST)));
        }
        let names = &self.home.names;
        let mut wire = wire(outgoing, names, &self.exchanges)?;
        let (level, key) = delays::route(delay, &names.queue(queue));
        (wire.exchange, wire.routing_key) = (short(names.delay(level))?, short(&key)?);
        Ok(wire)
    }

    /// Queues that do not exist, and what that means: one whose endpoint is on the list comes back.
    async fn missing(&self, queues: &BTreeSet<&str>) -> Result<BTreeMap<String, SendOutcome>> {
        let found = self.home.delays_ready(queues).await?;
        let gone: Vec<&str> = queues.iter().zip(found).filter(|(_, found)| !found).map(|(queue, _)| *queue).collect();
        if gone.is_empty() {
            return Ok(BTreeMap::new());
        }
        let destinations: Vec<Destination> =
            gone.iter().map(|queue| Destination::Queue((*queue).to_string())).collect();
        let claimed = self.home.claimed(&destinations.iter().collect::<Vec<_>>()).await?;
        let refusal = |(queue, claimed): (&str, bool)| {
            let outcome = match claimed {
                true => retry(&format!("queue {queue} is missing, though its endpoint was not retired")),
                false => SendOutcome::Unroutable(format!("queue {queue} does not exist")),
            };
            (queue.to_string(), outcome)
        };
        Ok(gone.into_iter().zip(claimed).map(refusal).collect())
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
