//! The committer of offsets, on a thread of its own.
//!
//! librdkafka commits asynchronously, but rdkafka 0.39 never tells the outcome of that: it reads events, and a commit that
//! was asked for makes none. A synchronous commit has an outcome, and may take as long as the coordinator is away; so it is
//! made here, where nothing waits for it.

use super::{
    cluster::committed,
    commit::{Commit, CommitOutcome},
    consumer_context::{Event, ReceiverContext},
    topic_partition::TopicPartition,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use sagabus_core::{Error, ErrorKind, Result};
use std::sync::{Arc, mpsc};

/// Commits offsets, one request after another.
pub(super) struct OffsetCommitter {
    jobs: mpsc::Sender<(Vec<Commit>, bool)>,
}

impl OffsetCommitter {
    /// To be called on the thread that waits for the outcomes: it is woken.
    pub(super) fn start(consumer: Arc<BaseConsumer<ReceiverContext>>) -> Result<Self> {
        let (jobs, receiver) = mpsc::channel::<(Vec<Commit>, bool)>();
        let waiting = std::thread::current();
        let work = move || {
            // ends with the sender
            while let Ok((commits, ask)) = receiver.recv() {
                let mut list = TopicPartitionList::with_capacity(commits.len());
                for Commit { partition: TopicPartition { topic, partition }, note, .. } in &commits {
                    let mut entry = list.add_partition(topic, *partition);
                    // the only error is an offset that cannot be
                    let _ = entry.set_offset(Offset::Offset(note.handled_below));
                    entry.set_metadata(note.text());
                }
                let outcome = consumer.commit(&list, CommitMode::Sync);
                let group_offsets =
                    if ask && outcome.is_ok() { group_offsets(&consumer, &commits) } else { Vec::new() };
                consumer.context().add(Event::Committed(CommitOutcome { outcome, group_offsets }));
                waiting.unpark();
            }
        };
        let thread = std::thread::Builder::new().name("sagabus-kafka-commit".into()).spawn(work);
        thread.map_err(|e| Error::with_source(ErrorKind::Transient, "start a thread for kafka", e))?;
        Ok(Self { jobs })
    }

    /// Commits. The outcome comes as an event; with `ask`, also the offsets that the group has then.
    pub(super) fn commit(&self, commits: Vec<Commit>, ask: bool) {
        // the thread lives as long as this
        let _ = self.jobs.send((commits, ask));
    }
}

/// The offsets that the group has. A commit that some partitions refused, for want of rights or because their topic is gone,
/// counts as done as long as one took it; so they have to be asked for before the store may rely on them.
fn group_offsets(consumer: &BaseConsumer<ReceiverContext>, commits: &[Commit]) -> Vec<(u64, i64)> {
    let partitions: Vec<TopicPartition> = commits.iter().map(|commit| commit.partition.clone()).collect();
    match committed(consumer, &partitions) {
        Ok(found) => {
            let offset = |(commit, note): (&Commit, Option<_>)| Some((commit.assignment, note?));
            let found = found.into_iter().map(|note| note.map(|note| note.handled_below));
            commits.iter().zip(found).filter_map(offset).collect()
        }
        Err(error) => {
            tracing::debug!(%error, "positions are written later");
            Vec::new()
        }
    }
}
