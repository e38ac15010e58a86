//! The bridge to the store's offsets: a task that asks and tells the store, since the receiver's thread cannot wait.

use super::{
    consumer_context::{Event, ReceiverContext},
    shared::ReceiverState,
    topic_partition::TopicPartition,
};
use sagabus_core::{LogPartition, OffsetStore, Position};
use std::sync::Arc;
use tokio::sync::mpsc;

enum Job {
    Claim(u64, Vec<LogPartition>),
    Advance(Vec<(u64, Position)>),
}

/// Sends jobs to the task that waits for the store.
pub(super) struct OffsetStoreBridge {
    jobs: mpsc::UnboundedSender<Job>,
}

impl OffsetStoreBridge {
    /// Starts the task. It ends with the bridge.
    pub(super) fn start(
        offsets: Arc<dyn OffsetStore>,
        state: Arc<ReceiverState>,
        context: Arc<ReceiverContext>,
    ) -> Self {
        let (jobs, mut waiting) = mpsc::unbounded_channel();
        state.cluster.options.runtime.clone().spawn(async move {
            while let Some(job) = waiting.recv().await {
                let event = match job {
                    Job::Claim(round, partitions) => {
                        Event::Claimed { round, outcome: offsets.claim(&state.queue, &partitions).await }
                    }
                    Job::Advance(advances) => {
                        let (told, advances): (Vec<_>, Vec<_>) = advances
                            .into_iter()
                            .map(|(assignment, position)| ((assignment, position.handled_below), position))
                            .unzip();
                        Event::Advanced { positions: told, outcome: offsets.advance(&state.queue, &advances).await }
                    }
                };
                context.add(event);
                state.wake();
            }
        });
        Self { jobs }
    }

    /// Claims partitions. The answer comes as an event.
    pub(super) fn claim(&self, round: u64, partitions: &[TopicPartition]) {
        // the bridge lives as long as the task, unless the whole process is ending
        let _ = self.jobs.send(Job::Claim(round, partitions.iter().map(TopicPartition::log_partition).collect()));
    }

    /// Advances positions. The answer comes as an event.
    pub(super) fn advance(&self, positions: Vec<(u64, Position)>) {
        let _ = self.jobs.send(Job::Advance(positions));
    }
}
