//! The in-flight window of a receiver: the records at hand, those that are handed out, and what is to be committed of
//! them. No waiting, no input or output.

use super::{
    commit::Commit,
    partition::{Partition, Record, ResumePoint},
    topic_partition::TopicPartition,
};
use sagabus_core::{Delivery, Position, Settle, Settlement, Token};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// The most records that are taken from one partition before the next one is asked.
const MAX_RECORDS_PER_ROUND: usize = 16;

/// How many records of a partition may wait, however many partitions there are.
const MIN_WAITING_PER_PARTITION: usize = 128;

/// The in-flight window over all assigned partitions.
pub(super) struct InFlight {
    window: usize,
    /// Whether nothing more is handed out.
    pub(super) stopped: bool,
    /// The partitions by the number of their assignment. The number is the epoch in tokens: an assignment that was revoked
    /// is never known again.
    partitions: BTreeMap<u64, Partition>,
    assignments: HashMap<TopicPartition, u64>,
    last_assignment: u64,
    last_position: u64,
    /// The partition that was asked last.
    last_served: u64,
    /// The records that are handed out, with assignment and offset, by the position in their token.
    handed_out: HashMap<u64, (u64, i64, Arc<Record>)>,
    /// Tokens of records that were handed out from a partition that is gone, and are not settled: they mean nothing any
    /// more, but their handlers still run.
    stale_tokens: HashSet<Token>,
}

impl InFlight {
    /// The numbers of assignments begin at one that no other receiver has.
    pub(super) fn new(window: usize, last_assignment: u64) -> Self {
        Self {
            window: window.max(1),
            stopped: false,
            partitions: BTreeMap::new(),
            assignments: HashMap::new(),
            last_assignment,
            last_position: 0,
            last_served: 0,
            handed_out: HashMap::new(),
            stale_tokens: HashSet::new(),
        }
    }

    pub(super) fn assign(&mut self, resumed: ResumePoint) {
        self.forget(&resumed.partition);
        self.last_assignment += 1;
        self.assignments.insert(resumed.partition.clone(), self.last_assignment);
        self.partitions.insert(self.last_assignment, Partition::new(resumed));
    }

    /// Forgets a partition that belongs to another process now: what is handed out of it means nothing any more.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        let Some(assignment) = self.assignments.remove(partition) else { return };
        self.partitions.remove(&assignment);
        let stale: Vec<u64> =
            self.handed_out.iter().filter(|(_, out)| out.0 == assignment).map(|(position, _)| *position).collect();
        for position in stale {
            self.handed_out.remove(&position);
            self.stale_tokens.insert(Token { epoch: assignment, position });
        }
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        self.assignments.keys().cloned().collect()
    }

    /// Hands out nothing more of a partition.
    pub(super) fn drain(&mut self, partition: &TopicPartition) {
        if let Some(partition) = self.partition_mut(partition) {
            partition.drain();
        }
    }

    /// Whether nothing of these partitions is handed out.
    pub(super) fn drained(&self, partitions: &[TopicPartition]) -> bool {
        partitions.iter().filter_map(|partition| self.partition(partition)).all(|partition| partition.handed_out == 0)
    }

    fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.partitions.get(self.assignments.get(partition)?)
    }

    fn partition_mut(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.partitions.get_mut(self.assignments.get(partition)?)
    }

    /// Takes in a record. Whether it may have been in flight when an earlier owner died is known here.
    pub(super) fn push(&mut self, partition: &TopicPartition, offset: i64, mut record: Record) {
        if let Some(partition) = self.partition_mut(partition) {
            record.delivery.suspect = offset < partition.resumed.suspect_until;
            partition.push(offset, record);
        }
    }

    /// Up to `max` deliveries within the window, a few from each partition in turn.
    pub(super) fn take(&mut self, max: usize) -> Vec<Delivery> {
        let count = max.min(self.window.saturating_sub(self.handed_out.len() + self.stale_tokens.len()));
        let mut taken = Vec::with_capacity(count);
        let mut without_records = 0;
        while taken.len() < count && without_records < self.partitions.len() {
            let following = self.partitions.range(self.last_served + 1..).next();
            let Some(assignment) = following.or_else(|| self.partitions.iter().next()).map(|(n, _)| *n) else { break };
            self.last_served = assignment;
            let before = taken.len();
            while taken.len() < count && taken.len() - before < MAX_RECORDS_PER_ROUND {
                let Some((offset, record)) = self.partitions.get_mut(&assignment).and_then(Partition::pop) else {
                    break;
                };
                taken.push(self.hand_out(assignment, offset, record));
            }
            without_records = if taken.len() == before { without_records + 1 } else { 0 };
        }
        taken
    }

    fn hand_out(&mut self, assignment: u64, offset: i64, record: Arc<Record>) -> Delivery {
        self.last_position += 1;
        let mut delivery = record.delivery.clone();
        delivery.token = Token { epoch: assignment, position: self.last_position };
        self.handed_out.insert(self.last_position, (assignment, offset, record));
        delivery
    }

    /// Settles; a token that is not known is ignored.
    pub(super) fn settle(&mut self, settlements: &[Settlement]) {
        for Settlement { token, settle } in settlements {
            if self.handed_out.get(&token.position).is_none_or(|(assignment, ..)| *assignment != token.epoch) {
                self.stale_tokens.remove(token);
                continue;
            }
            let Some((assignment, offset, record)) = self.handed_out.remove(&token.position) else { continue };
            let Some(partition) = self.partitions.get_mut(&assignment) else { continue };
            partition.handed_out -= 1;
            match settle {
                Settle::Done | Settle::Committed => partition.finish(offset),
                Settle::Return => partition.put_back(offset, record),
            }
        }
    }

    /// Whether a partition waits for its limit to be committed.
    pub(super) fn needs_commit_now(&self) -> bool {
        !self.stopped && self.partitions.values().any(Partition::needs_commit_now)
    }

    /// What is to be committed: see [`Partition::pending_commit`].
    pub(super) fn pending_commits(&mut self, last: bool, with_position: bool) -> Vec<Commit> {
        let commit = |(assignment, partition): (&u64, &mut Partition)| {
            let note = partition.pending_commit(last, with_position)?;
            Some(Commit { assignment: *assignment, partition: partition.resumed.partition.clone(), note })
        };
        self.partitions.iter_mut().filter_map(commit).collect()
    }

    pub(super) fn committed(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(partition) = self.partitions.get_mut(&commit.assignment) {
                partition.committed(&commit.note);
            }
        }
    }

    pub(super) fn commit_failed(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(partition) = self.partitions.get_mut(&commit.assignment) {
                partition.commit_failed();
            }
        }
    }

    /// The positions that the store is to know, by the number of the assignment, now that the group has these offsets.
    pub(super) fn positions_to_advance(&mut self, group_offsets: &[(u64, i64)]) -> Vec<(u64, Position)> {
        let advance = |(assignment, offset): &(u64, i64)| {
            Some((*assignment, self.partitions.get_mut(assignment)?.position_to_advance(*offset)?))
        };
        group_offsets.iter().filter_map(advance).collect()
    }

    /// Notes which positions the store has taken. Answers how many it has refused.
    pub(super) fn positions_advanced(&mut self, advanced: &[(u64, i64)], accepted: &[bool]) -> usize {
        for ((assignment, handled_below), accepted) in advanced.iter().zip(accepted) {
            if let Some(partition) = self.partitions.get_mut(assignment) {
                partition.position_advanced(*handled_below, *accepted);
            }
        }
        accepted.iter().filter(|accepted| !**accepted).count()
    }

    /// How many more records of a partition there is room for.
    pub(super) fn room(&mut self, partition: &TopicPartition) -> usize {
        let max = self.max_waiting();
        self.partition_mut(partition).map_or(0, |partition| partition.room(max))
    }

    /// Whether a partition for which there was no room has some again.
    pub(super) fn has_room_again(&self) -> bool {
        let max = self.max_waiting();
        self.partitions.values().any(|partition| partition.has_room_again(max))
    }

    /// How many records of a partition may wait here: together as many as two windows. What is decoded long before it is
    /// handed out has left the processor's caches by then.
    fn max_waiting(&self) -> usize {
        (2 * self.window / self.partitions.len().max(1)).max(MIN_WAITING_PER_PARTITION)
    }
}
