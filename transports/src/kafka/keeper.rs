//! What the store knows of partitions: asked for and told by a task, since the receiver's thread cannot wait.

use super::{
    lane::Place,
    receiver::Shared,
    watch::{Event, Watch},
};
use sagabus_core::{LogPartition, OffsetStore, Position};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The store's name of a partition.
pub(super) fn log_place((topic, partition): &Place) -> LogPartition {
    LogPartition { log: format!("kafka:{topic}").into(), partition: *partition }
}

enum Job {
    Claim(u64, Vec<LogPartition>),
    Raise(Vec<(u64, Position)>),
}

pub(super) struct Keeper {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Keeper {
    /// Its task ends with it.
    pub(super) fn start(positions: Arc<dyn OffsetStore>, shared: Arc<Shared>, watch: Arc<Watch>) -> Self {
        let (jobs, mut waiting) = mpsc::unbounded_channel();
        shared.home.options.runtime.clone().spawn(async move {
            while let Some(job) = waiting.recv().await {
                let event = match job {
                    Job::Claim(round, places) => {
                        Event::Claimed { round, outcome: positions.claim(&shared.queue, &places).await }
                    }
                    Job::Raise(raises) => {
                        let (what, raises): (Vec<_>, Vec<_>) = raises
                            .into_iter()
                            .map(|(lane, position)| ((lane, position.handled_below), position))
                            .unzip();
                        Event::Raised { what, outcome: positions.advance(&shared.queue, &raises).await }
                    }
                };
                watch.add(event);
                shared.wake();
            }
        });
        Self { jobs }
    }

    /// The answer comes as an event.
    pub(super) fn claim(&self, round: u64, places: &[Place]) {
        // it lives as long as the task, unless the whole process is ending
        let _ = self.jobs.send(Job::Claim(round, places.iter().map(log_place).collect()));
    }

    /// The answer comes as an event.
    pub(super) fn raise(&self, raises: Vec<(u64, Position)>) {
        let _ = self.jobs.send(Job::Raise(raises));
    }
}
