//! Taking over the partitions that the group has assigned: where each goes on, by the group, the topic and the store.

use super::{
    super::{
        cluster::committed,
        fingerprint::Fingerprint,
        partition::ResumePoint,
        recreated_topics::recreated,
        start_offset::{Known, start_offset},
    },
    ReceiverContext, ReceiverState, Session, TopicPartition,
};
use crate::lock;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use sagabus_core::{Error, ErrorKind, Position, Result};
use std::{collections::HashMap, time::Duration};

/// How long after a failure to take over partitions it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How often partitions must be refused before the receiver halts: the broker that answers may have been behind for a
/// moment.
const REFUSALS_BEFORE_HALT: u32 = 6;

impl Session {
    pub(super) fn claimed(&mut self, outcome: Result<Vec<Position>>) {
        self.claiming = false;
        match outcome {
            Ok(positions) => {
                let mut by_partition: HashMap<_, _> = positions.into_iter().map(|p| (p.partition.clone(), p)).collect();
                for partition in self.assigned.iter().flatten() {
                    if let Some(position) = by_partition.remove(&partition.log_partition()) {
                        self.claimed.insert(partition.clone(), position);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(queue = self.state.queue, ?error, "could not claim partitions in the store yet");
                self.state.report(error);
                self.take_over_not_before = self.now() + RETRY_PAUSE;
            }
        }
    }

    /// Forgets the store's answers about partitions that were not taken over.
    pub(super) fn disclaim(&mut self) {
        self.claimed.clear();
        (self.claiming, self.claim_round, self.refusals) = (false, self.claim_round + 1, 0);
    }

    /// Whether the store has answered about all of these; asks it otherwise.
    fn is_claimed(&mut self, partitions: &[TopicPartition]) -> bool {
        let Some(bridge) = &self.bridge else { return true };
        let missing: Vec<TopicPartition> =
            partitions.iter().filter(|partition| !self.claimed.contains_key(*partition)).cloned().collect();
        if !missing.is_empty() && !self.claiming {
            self.claiming = true;
            bridge.claim(self.claim_round, &missing);
        }
        missing.is_empty()
    }

    /// Finds out where to go on, and takes the partitions.
    pub(super) fn take_over(&mut self) {
        if self.now() < self.take_over_not_before {
            return;
        }
        let Some(partitions) = self.assigned.take() else { return };
        if !self.is_claimed(&partitions) {
            self.assigned = Some(partitions);
            return;
        }
        let found = match resume_points(&self.state, &self.consumer, &partitions, &self.claimed) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(queue = self.state.queue, %error, "could not take over partitions yet");
                self.state.report(error);
                self.take_over_not_before = self.now() + RETRY_PAUSE;
                self.assigned = Some(partitions);
                return;
            }
        };
        if let Some(error) = found.refused {
            self.refusals += 1;
            if self.refusals < REFUSALS_BEFORE_HALT {
                self.take_over_not_before = self.now() + RETRY_PAUSE;
                self.assigned = Some(partitions);
                return;
            }
            self.state.halt(error);
        }
        self.disclaim();
        self.assign(&partitions, found.points);
    }

    fn assign(&mut self, partitions: &[TopicPartition], points: Vec<ResumePoint>) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            let point = points.iter().find(|point| point.partition == *partition);
            let from = point.map_or(Offset::End, |point| Offset::Offset(point.note.handled_below));
            // the only error is an offset that cannot be
            let _ = list.add_partition_offset(&partition.topic, partition.partition, from);
        }
        let mut in_flight = lock(&self.state.in_flight);
        points.into_iter().for_each(|point| in_flight.assign(point));
        drop(in_flight);
        self.open_queues(partitions);
        if let Err(error) = self.consumer.incremental_assign(&list) {
            // the group has gone on without us: it will assign again
            tracing::debug!(queue = self.state.queue, %error, "the assignment is void");
            self.forget(partitions);
            self.close_queues(partitions);
        }
    }
}

/// Where to go on; and why not, if there are partitions that a person has to see to first.
struct ResumePoints {
    points: Vec<ResumePoint>,
    refused: Option<Error>,
}

/// Finds out where to go on with these partitions. `positions` are the store's.
fn resume_points(
    state: &ReceiverState,
    consumer: &BaseConsumer<ReceiverContext>,
    partitions: &[TopicPartition],
    positions: &HashMap<TopicPartition, Position>,
) -> Result<ResumePoints> {
    let mut found = ResumePoints { points: Vec::with_capacity(partitions.len()), refused: None };
    if partitions.is_empty() {
        return Ok(found);
    }
    let stored = committed(consumer, partitions)?;
    let ends = partitions.iter().map(|partition| state.cluster.ends(partition)).collect::<Result<Vec<_>>>()?;
    let mut fingerprints = HashMap::new();
    for (partition, (low, high)) in partitions.iter().zip(&ends) {
        let fingerprint = positions.get(partition).and_then(|position| Fingerprint::read(&position.fingerprint));
        // what retention has removed cannot be looked at, and beyond the end there is nothing
        if let Some(fingerprint) = fingerprint.filter(|fingerprint| (*low..*high).contains(&fingerprint.offset)) {
            fingerprints.insert(partition.clone(), fingerprint);
        }
    }
    let recreated = recreated(state, &fingerprints)?;
    for ((partition, note), ends) in partitions.iter().zip(stored).zip(ends) {
        let wanted = state.wanted(&partition.topic, partition.partition);
        let position = positions.get(partition);
        let handled_below = position.map_or(0, |position| position.handled_below);
        let forgotten = note.is_none() && handled_below > 0;
        let recreated = recreated.contains(partition);
        match start_offset(Known { note, ends, wanted: wanted.as_deref(), handled_below, recreated }) {
            Ok(note) => {
                if forgotten {
                    let (queue, topic, number) = (&state.queue, &partition.topic, partition.partition);
                    let from = note.handled_below;
                    tracing::warn!(queue, %topic, partition = number, from, "the group has no offset: going on by the store's");
                }
                found.points.push(ResumePoint {
                    partition: partition.clone(),
                    suspect_until: note.limit.min(ends.1),
                    note,
                    wanted,
                    durable: true,
                    position: position.cloned(),
                });
            }
            Err(refused) => {
                let group = state.cluster.names.group(&state.queue);
                let text = refused.text(&state.queue, partition, &group, (handled_below, ends.1));
                found.refused.get_or_insert_with(|| Error::new(ErrorKind::Backend, text));
            }
        }
    }
    Ok(found)
}
