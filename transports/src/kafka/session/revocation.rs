//! Giving up partitions that the group has revoked.

use super::{CommitReason, Session, TopicPartition, list_of};
use crate::lock;
use rdkafka::consumer::Consumer;

impl Session {
    /// Forgets partitions that another process may already have.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(queue = self.state.queue, "this process was taken for dead: its partitions are lost");
        // the group does not wait for an answer to what it asked before
        (self.revoked, self.assigned) = (None, None);
        self.disclaim();
        self.give_up(partitions);
    }

    /// Hands out nothing more of the partitions, and gives them up soon.
    pub(super) fn revoke(&mut self, partitions: Vec<TopicPartition>) {
        let mut in_flight = lock(&self.state.in_flight);
        partitions.iter().for_each(|partition| in_flight.drain(partition));
        drop(in_flight);
        self.give_up_at = self.now() + self.state.cluster.options.drain_timeout;
        self.revoked = Some(partitions);
        self.last_commit_made = false;
    }

    /// Gives up the revoked partitions once nothing of them is in flight, and that is committed; or the time is over.
    pub(super) fn give_up_revoked(&mut self) {
        let Some(revoked) = &self.revoked else { return };
        let late = self.now() >= self.give_up_at;
        if self.committing.is_some() && !late {
            return;
        }
        if !self.last_commit_made && (late || lock(&self.state.in_flight).drained(revoked)) {
            self.last_commit_made = true;
            self.commit(CommitReason::Revoked);
            if self.committing.is_some() {
                return;
            }
        }
        if self.last_commit_made {
            if late {
                tracing::info!(queue = self.state.queue, "handlers take longer than a partition waits for them");
            }
            let partitions = self.revoked.take().unwrap_or_default();
            self.give_up(&partitions);
        }
    }

    pub(super) fn give_up(&mut self, partitions: &[TopicPartition]) {
        self.forget(partitions);
        if let Some(assigned) = &mut self.assigned {
            assigned.retain(|partition| !partitions.contains(partition));
        }
        self.disclaim();
        self.close_queues(partitions);
        if let Err(error) = self.consumer.incremental_unassign(&list_of(partitions)) {
            tracing::debug!(queue = self.state.queue, %error, "there is nothing to give up");
        }
    }

    pub(super) fn forget(&self, partitions: &[TopicPartition]) {
        let mut in_flight = lock(&self.state.in_flight);
        partitions.iter().for_each(|partition| in_flight.forget(partition));
    }
}
