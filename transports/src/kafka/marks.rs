//! Something of a topic by which it is known again: a topic that is removed and made again begins at 0 under the same name.

use super::{
    client::{PATIENCE, Quiet},
    decode::decode,
    error::failed,
    lane::Place,
    receiver::Shared,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Message},
};
use sagabus_core::{Error, ErrorKind, Headers, Result};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// A message that lay at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: i64,
    /// Its id and time.
    what: String,
}

impl Mark {
    pub(super) fn of(offset: i64, headers: &Headers) -> Self {
        Self { offset, what: format!("{} {}", headers.message_id, headers.sent_at.0) }
    }

    pub(super) fn text(&self) -> String {
        format!("{} {}", self.offset, self.what)
    }

    /// Nothing, for text that is not ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (offset, what) = text.split_once(' ')?;
        Some(Self { offset: offset.parse().ok().filter(|offset| *offset >= 0)?, what: what.to_string() })
    }
}

/// Those of the places where something else lies now. The marks must lie within what the topics hold.
pub(super) fn strangers(shared: &Shared, marks: &HashMap<Place, Mark>) -> Result<HashSet<Place>> {
    let mut by_topic: HashMap<&str, HashMap<i32, (&Place, &Mark)>> = HashMap::new();
    for (place, mark) in marks {
        by_topic.entry(&place.0).or_default().insert(place.1, (place, mark));
    }
    let mut strangers = HashSet::new();
    if by_topic.is_empty() {
        return Ok(strangers);
    }
    let reader = shared.home.glance(&shared.home.names.group(&shared.queue))?;
    // one by one, since the end of a partition is told without its topic
    for (topic, mut open) in by_topic {
        strangers.extend(look(shared, &reader, topic, &mut open)?.into_iter().cloned());
    }
    Ok(strangers)
}

fn look<'a>(
    shared: &Shared,
    reader: &BaseConsumer<Quiet>,
    topic: &str,
    open: &mut HashMap<i32, (&'a Place, &Mark)>,
) -> Result<Vec<&'a Place>> {
    let runtime = &shared.home.options.runtime;
    let doing = || format!("look at what {} has handled of topic {topic}", shared.queue);
    let mut list = TopicPartitionList::with_capacity(open.len());
    for (partition, (_, mark)) in &*open {
        list.add_partition_offset(topic, *partition, Offset::Offset(mark.offset)).map_err(|e| failed(doing(), e))?;
    }
    reader.assign(&list).map_err(|e| failed(doing(), e))?;
    let (start, mut strangers) = (runtime.elapsed(), Vec::new());
    while !open.is_empty() {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                if let Some((place, mark)) = open.remove(&record.partition())
                    && read(shared, &record) != *mark
                {
                    strangers.push(place);
                }
                rest(reader, topic, record.partition()).map_err(|e| failed(doing(), e))?;
            }
            // nothing is there but what transactions leave behind: not what we have read
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                strangers.extend(open.remove(&partition).map(|(place, _)| place));
                rest(reader, topic, partition).map_err(|e| failed(doing(), e))?;
            }
            Some(Err(error)) => return Err(failed(doing(), error)),
            None => {}
        }
        if runtime.elapsed() - start > PATIENCE {
            return Err(Error::new(ErrorKind::Transient, format!("{}: no answer in time", doing())));
        }
    }
    Ok(strangers)
}

/// Of a batch that is larger than what is asked for, the broker sends the first one in a request only: a partition that goes
/// on reading would keep others from being that.
fn rest(reader: &BaseConsumer<Quiet>, topic: &str, partition: i32) -> KafkaResult<()> {
    let mut seen = TopicPartitionList::with_capacity(1);
    seen.add_partition(topic, partition);
    reader.pause(&seen)
}

fn read(shared: &Shared, record: &BorrowedMessage<'_>) -> Mark {
    let event = shared.topics.get(record.topic()).and_then(Option::as_deref);
    let decoded = decode(record, event, &shared.home.options.runtime);
    Mark::of(record.offset(), &decoded.message.headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark { offset: 17, what: "0190 5".into() };
        assert_eq!(Mark::read(&mark.text()), Some(mark));
        for text in ["", "17", "x 0190 5", "-3 0190 5"] {
            assert_eq!(Mark::read(text), None, "{text}");
        }
    }
}
