//! Commits of offsets, on a thread of their own.
//!
//! librdkafka commits asynchronously, but rdkafka 0.39 never tells the outcome of that: it reads events, and a commit that
//! was asked for makes none. A synchronous commit has an outcome, and may take as long as the coordinator is away; so it is
//! made here, where nothing waits for it.

use super::{
    client::committed,
    lane::Place,
    progress::Note,
    watch::{Event, Watch},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};
use sagabus_core::{Error, ErrorKind, Result};
use std::sync::{Arc, mpsc};

/// What is to be written down of a partition.
#[derive(Clone)]
pub(super) struct Commit {
    /// The number of the assignment.
    pub(super) lane: u64,
    pub(super) place: Place,
    pub(super) note: Note,
}

/// What became of them.
pub(super) struct Committed {
    pub(super) outcome: std::result::Result<(), KafkaError>,
    /// If that was asked for: what the group has now, by the number of the assignment.
    pub(super) bases: Vec<(u64, i64)>,
}

pub(super) struct Committer {
    jobs: mpsc::Sender<(Vec<Commit>, bool)>,
}

impl Committer {
    /// To be called on the thread that waits for the outcomes: it is woken.
    pub(super) fn start(consumer: Arc<BaseConsumer<Watch>>) -> Result<Self> {
        let (jobs, receiver) = mpsc::channel::<(Vec<Commit>, bool)>();
        let waiting = std::thread::current();
        let work = move || {
            // ends with the sender
            while let Ok((commits, ask)) = receiver.recv() {
                let mut list = TopicPartitionList::with_capacity(commits.len());
                for Commit { place: (topic, partition), note, .. } in &commits {
                    let mut entry = list.add_partition(topic, *partition);
                    // the only error is an offset that cannot be
                    let _ = entry.set_offset(Offset::Offset(note.base));
                    entry.set_metadata(note.text());
                }
                let outcome = consumer.commit(&list, CommitMode::Sync);
                let bases = if ask && outcome.is_ok() { bases(&consumer, &commits) } else { Vec::new() };
                consumer.context().add(Event::Committed(Committed { outcome, bases }));
                waiting.unpark();
            }
        };
        let thread = std::thread::Builder::new().name("sagabus-kafka-commit".into()).spawn(work);
        thread.map_err(|e| Error::with_source(ErrorKind::Transient, "start a thread for kafka", e))?;
        Ok(Self { jobs })
    }

    /// The outcome comes as an event; with `ask`, also what the group has then.
    pub(super) fn write(&self, commits: Vec<Commit>, ask: bool) {
        // the thread lives as long as this
        let _ = self.jobs.send((commits, ask));
    }
}

/// What the group has. A commit that some partitions refused, for want of rights or because their topic is gone, counts as
/// done as long as one took it; so whoever wants to rely on it has to ask.
fn bases(consumer: &BaseConsumer<Watch>, commits: &[Commit]) -> Vec<(u64, i64)> {
    let places: Vec<Place> = commits.iter().map(|commit| commit.place.clone()).collect();
    match committed(consumer, &places) {
        Ok(notes) => commits.iter().zip(notes).filter_map(|(c, note)| Some((c.lane, note?.base))).collect(),
        Err(error) => {
            tracing::debug!(%error, "positions are written later");
            Vec::new()
        }
    }
}
