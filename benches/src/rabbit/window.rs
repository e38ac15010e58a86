//! Acks and confirms of the baseline.

use anyhow::{Result, ensure};
use futures::future::join_all;
use lapin::{BasicProperties, Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use std::collections::VecDeque;

/// Which deliveries are through: acknowledged up to the first that is not.
#[derive(Default)]
pub(super) struct Acks {
    base: u64,
    done: VecDeque<bool>,
}

impl Acks {
    /// Those with these tags are through; up to which to acknowledge now.
    pub(super) fn done(&mut self, tags: &[u64]) -> Option<u64> {
        for tag in tags {
            let at = usize::try_from(tag - self.base - 1).unwrap_or(usize::MAX);
            if self.done.len() <= at {
                self.done.resize(at + 1, false);
            }
            self.done[at] = true;
        }
        let before = self.base;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.base += 1;
        }
        (self.base > before).then_some(self.base)
    }
}

/// Publishes a batch and waits until the broker has all of it.
pub(super) async fn publish(channel: &Channel, queue: &ShortString, batch: &[(uuid::Uuid, Vec<u8>)]) -> Result<()> {
    let sends = batch.iter().map(|(id, body)| {
        let properties = BasicProperties::default()
            .with_message_id(id.to_string().into())
            .with_type("bench.output".into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        channel.basic_publish("".into(), queue.clone(), options, body, properties)
    });
    for confirm in join_all(sends).await {
        ensure!(matches!(confirm?.await?, Confirmation::Ack(None)), "the broker did not take an output");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Acks;

    #[test]
    fn only_a_prefix_without_gaps() {
        let mut acks = Acks::default();
        assert_eq!(acks.done(&[2, 3]), None);
        assert_eq!(acks.done(&[1]), Some(3));
        assert_eq!(acks.done(&[5]), None);
        assert_eq!(acks.done(&[4, 6]), Some(6));
    }
}
