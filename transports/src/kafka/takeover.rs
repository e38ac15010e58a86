//! Taking over partitions: where to begin, by what the group, the topic and the store say.

use super::{
    begin::{Known, begin},
    client::committed,
    lane::{TopicPartition, ResumePoint},
    marks::{Fingerprint, strangers},
    receiver::Shared,
    watch::ReceiverContext,
};
use rdkafka::consumer::BaseConsumer;
use sagabus_core::{Error, ErrorKind, Position, Result};
use std::{collections::HashMap, sync::Arc};

/// Where to begin; and why not, if there are partitions that a person has to see to first.
pub(super) struct ResumePoints {
    pub(super) starts: Vec<ResumePoint>,
    pub(super) trouble: Option<Error>,
}

/// Finds out where to begin with these partitions. `positions` are what the store knows of them.
pub(super) fn starts(
    shared: &Shared,
    consumer: &BaseConsumer<ReceiverContext>,
    places: &[TopicPartition],
    positions: &HashMap<TopicPartition, Position>,
) -> Result<ResumePoints> {
    let mut all = ResumePoints { starts: Vec::with_capacity(places.len()), trouble: None };
    if places.is_empty() {
        return Ok(all);
    }
    let notes = committed(consumer, places)?;
    let ends =
        places.iter().map(|(topic, partition)| shared.cluster.ends(topic, *partition)).collect::<Result<Vec<_>>>()?;
    let mut marks = HashMap::new();
    for (place, (low, high)) in places.iter().zip(&ends) {
        let mark = positions.get(place).and_then(|position| Fingerprint::read(&position.fingerprint));
        // what retention has removed cannot be looked at, and beyond the end there is nothing
        if let Some(mark) = mark.filter(|mark| (*low..*high).contains(&mark.offset)) {
            marks.insert(place.clone(), mark);
        }
    }
    let strangers = strangers(shared, &marks)?;
    for ((place, note), ends) in places.iter().zip(notes).zip(ends) {
        let wanted = shared.wanted(&place.0, place.1);
        let position = positions.get(place);
        let base = position.map_or(0, |position| position.handled_below);
        let forgotten = note.is_none() && base > 0;
        let facts = Known { note, ends, wanted: wanted.as_deref(), base, stranger: strangers.contains(place) };
        match begin(facts) {
            Ok(note) => {
                if forgotten {
                    let (queue, topic, partition) = (&shared.queue, &place.0, place.1);
                    tracing::warn!(queue, %topic, partition, from = note.base, "the group has no offset: going on by the store's");
                }
                let suspect_until = note.limit.min(ends.1);
                let place = (Arc::clone(&place.0), place.1);
                all.starts.push(ResumePoint {
                    place,
                    note,
                    suspect_until,
                    wanted,
                    durable: true,
                    position: position.cloned(),
                });
            }
            Err(trouble) => {
                let text = trouble.text(&shared.queue, place, &shared.cluster.names.group(&shared.queue), (base, ends.1));
                all.trouble.get_or_insert_with(|| Error::new(ErrorKind::Backend, text));
            }
        }
    }
    Ok(all)
}
