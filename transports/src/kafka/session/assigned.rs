//! Taking over what the group has assigned.

use super::{
    super::{keeper::log_place, lane::Place, takeover::starts},
    Session,
};
use crate::lock;
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer};
use sagabus_core::{Position, Result};
use std::{collections::HashMap, time::Duration};

/// After a failure to take over partitions, they are tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// Before it halts because of what a partition's offsets look like, it has looked so often: whoever answers may have been
/// behind for a moment.
const DOUBTS: u32 = 6;

impl Session {
    pub(super) fn claimed(&mut self, outcome: Result<Vec<Position>>) {
        self.claiming = false;
        match outcome {
            Ok(positions) => {
                let mut by_place: HashMap<_, _> = positions.into_iter().map(|p| (p.partition.clone(), p)).collect();
                for place in self.assigned.iter().flatten() {
                    if let Some(position) = by_place.remove(&log_place(place)) {
                        self.claimed.insert(place.clone(), position);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(queue = self.shared.queue, ?error, "could not claim partitions in the store yet");
                self.shared.report(error);
                self.not_before = self.now() + AGAIN;
            }
        }
    }

    /// What the store said about partitions that were not taken over counts no more.
    pub(super) fn disclaim(&mut self) {
        self.claimed.clear();
        (self.claiming, self.round, self.doubts) = (false, self.round + 1, 0);
    }

    /// Whether the store has answered about all of these; asks it otherwise.
    pub(super) fn is_claimed(&mut self, places: &[Place]) -> bool {
        let Some(keeper) = &self.keeper else { return true };
        let missing: Vec<Place> = places.iter().filter(|place| !self.claimed.contains_key(*place)).cloned().collect();
        if !missing.is_empty() && !self.claiming {
            self.claiming = true;
            keeper.claim(self.round, &missing);
        }
        missing.is_empty()
    }

    /// Finds out where to begin, and takes the partitions.
    pub(super) fn take_over(&mut self) {
        if self.now() < self.not_before {
            return;
        }
        let Some(places) = self.assigned.take() else { return };
        if !self.is_claimed(&places) {
            self.assigned = Some(places);
            return;
        }
        let found = match starts(&self.shared, &self.consumer, &places, &self.claimed) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(queue = self.shared.queue, %error, "could not take over partitions yet");
                self.shared.report(error);
                self.not_before = self.now() + AGAIN;
                self.assigned = Some(places);
                return;
            }
        };
        if let Some(error) = found.trouble {
            self.doubts += 1;
            if self.doubts < DOUBTS {
                self.not_before = self.now() + AGAIN;
                self.assigned = Some(places);
                return;
            }
            self.shared.halt(error);
        }
        self.disclaim();
        let starts = found.starts;
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &places {
            let start = starts.iter().find(|start| start.place.0 == *topic && start.place.1 == *partition);
            let from = start.map_or(Offset::End, |start| Offset::Offset(start.note.base));
            // the only error is an offset that cannot be
            let _ = list.add_partition_offset(topic, *partition, from);
        }
        let mut desk = lock(&self.shared.desk);
        starts.into_iter().for_each(|start| desk.assign(start));
        drop(desk);
        self.open(&places);
        if let Err(error) = self.consumer.incremental_assign(&list) {
            // the group has gone on without us: it will assign again
            tracing::debug!(queue = self.shared.queue, %error, "the assignment is void");
            let mut desk = lock(&self.shared.desk);
            places.iter().for_each(|place| desk.forget(place));
            drop(desk);
            self.sources.retain(|source| !places.contains(&source.place));
        }
    }
}
