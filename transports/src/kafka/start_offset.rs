//! The start offset of a partition, or the reason why there is none: what the group, the topic and the store know of it
//! must fit together.

use super::{offset_tracker::OffsetNote, topic_partition::TopicPartition};

/// What is known of a partition.
pub(super) struct Known<'a> {
    /// The note that the group has committed.
    pub(super) note: Option<OffsetNote>,
    /// The first offset that is there, and the one that comes next.
    pub(super) ends: (i64, i64),
    /// The ranges that are wanted; `None` for all.
    pub(super) wanted: Option<&'a [(i64, i64)]>,
    /// The store's position: every offset below was handled; 0 if it knows nothing.
    pub(super) handled_below: i64,
    /// Whether another message than the handled one lies at an offset below the store's position.
    pub(super) recreated: bool,
}

/// Why a partition cannot be taken over: a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartRefused {
    /// Messages were removed before they were handled.
    Removed,
    /// The group is behind what the store knows to be handled.
    SetBack { offset: i64 },
    /// The topic ends before the offset to go on from.
    TooShort { from: i64 },
    /// It is another topic of the same name.
    Recreated,
    /// The same, of an event's topic: it ends before the subscription begins.
    Unsubscribed { from: i64 },
}

/// The note to go on from.
pub(super) fn start_offset(known: Known<'_>) -> Result<OffsetNote, StartRefused> {
    let Known { note, ends: (low, high), wanted, handled_below, recreated } = known;
    if recreated {
        return Err(StartRefused::Recreated);
    }
    if handled_below > high {
        return Err(StartRefused::TooShort { from: handled_below });
    }
    if let Some((from, _)) =
        wanted.and_then(|ranges| ranges.last()).filter(|(from, until)| *from > high && *until == i64::MAX)
    {
        return Err(StartRefused::Unsubscribed { from: *from });
    }
    let note = match note {
        // what is committed is written down here only afterwards: so this is no trace of a process that died
        Some(note) if note.handled_below < handled_below => {
            return Err(StartRefused::SetBack { offset: note.handled_below });
        }
        Some(note) if note.handled_below > high => return Err(StartRefused::TooShort { from: note.handled_below }),
        Some(note) => note,
        // the group was forgotten, and the store knows where it was
        None if handled_below > 0 => OffsetNote::at(handled_below),
        None => {
            let begin = wanted.and_then(|ranges| ranges.first()).map_or(low, |(from, _)| *from);
            return Ok(OffsetNote::at(begin.max(low)));
        }
    };
    if note.unfinished(note.handled_below, low) > 0 {
        return Err(StartRefused::Removed);
    }
    Ok(note)
}

impl StartRefused {
    /// The text about a partition of which everything below `handled_below` was handled, and which ends at `high`.
    pub(super) fn text(
        self,
        queue: &str,
        partition: &TopicPartition,
        group: &str,
        (handled_below, high): (i64, i64),
    ) -> String {
        let TopicPartition { topic, partition } = partition;
        let what = format!("receive from {queue}: partition {partition} of topic {topic}");
        let reset = format!("position reset {queue} kafka:{topic} {partition} --to");
        match self {
            StartRefused::Removed => format!(
                "{what}: kafka removed messages that were not handled (its retention is too short); stop the endpoint and \
                 set the offset of group {group} to go on"
            ),
            StartRefused::SetBack { offset } => format!(
                "{what}: the offset of group {group} is {offset}, and everything below {handled_below} was handled: it was set back; \
                 set it to {handled_below} to go on, or do `{reset} {offset}` (docs/kafka.md, replay) to handle the messages again"
            ),
            StartRefused::TooShort { from } => format!(
                "{what}: it ends at {high}, and everything below {from} was handled: it was removed and made again, or cut \
                 off; do `{reset} 0` (docs/kafka.md, replay), and set the offset of group {group} to where to begin"
            ),
            StartRefused::Recreated => format!(
                "{what}: below {handled_below}, where everything was handled, lie other messages now: it was removed and made again; \
                 do `{reset} 0` (docs/kafka.md, replay), and set the offset of group {group} to where to begin"
            ),
            StartRefused::Unsubscribed { from } => format!(
                "{what}: it ends at {high}, and {queue} has subscribed from {from} on: it was removed and made again; remove \
                 the topic of the endpoint's subscriptions too, and start the endpoint to subscribe anew"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(note: Option<i64>, ends: (i64, i64), handled_below: i64) -> Known<'static> {
        Known { note: note.map(OffsetNote::at), ends, wanted: None, handled_below, recreated: false }
    }

    #[test]
    fn a_group_that_is_at_the_base_or_before_it_goes_on() {
        for (offset, base) in [(100, 0), (100, 99), (100, 100)] {
            assert_eq!(start_offset(known(Some(offset), (0, 200), base)), Ok(OffsetNote::at(offset)));
        }
        // nothing is left of the topic, and nothing is missing
        assert_eq!(start_offset(known(Some(200), (200, 200), 200)), Ok(OffsetNote::at(200)));
    }

    #[test]
    fn a_group_that_was_set_back_stops() {
        assert_eq!(start_offset(known(Some(99), (0, 200), 100)), Err(StartRefused::SetBack { offset: 99 }));
        assert_eq!(start_offset(known(Some(0), (0, 200), 100)), Err(StartRefused::SetBack { offset: 0 }));
        let partition = TopicPartition::new("t.cmd.shop", 3);
        let text = StartRefused::SetBack { offset: 7 }.text("shop", &partition, "t.shop", (100, 200));
        for part in ["t.cmd.shop", "partition 3", "is 7", "below 100", "position reset shop kafka:t.cmd.shop 3 --to 7"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_group_that_was_forgotten_goes_on_where_the_store_says() {
        assert_eq!(start_offset(known(None, (0, 200), 100)), Ok(OffsetNote::at(100)));
        assert_eq!(start_offset(known(None, (150, 200), 100)), Err(StartRefused::Removed));
        assert_eq!(start_offset(known(None, (50, 200), 0)), Ok(OffsetNote::at(50)), "it has never been here");
    }

    #[test]
    fn another_topic_of_the_same_name_stops() {
        assert_eq!(start_offset(known(None, (0, 20), 100)), Err(StartRefused::TooShort { from: 100 }));
        assert_eq!(start_offset(known(Some(100), (0, 20), 0)), Err(StartRefused::TooShort { from: 100 }));
        let recreated = Known { recreated: true, ..known(Some(100), (0, 200), 100) };
        assert_eq!(start_offset(recreated), Err(StartRefused::Recreated));
        let event = |wanted| Known { wanted: Some(wanted), ..known(None, (0, 20), 0) };
        assert_eq!(start_offset(event(&[(0, 5), (30, i64::MAX)])), Err(StartRefused::Unsubscribed { from: 30 }));
        assert_eq!(start_offset(event(&[(20, i64::MAX)])), Ok(OffsetNote::at(20)));
        assert_eq!(start_offset(event(&[(30, 40)])), Ok(OffsetNote::at(30)), "it is not subscribed any more");
    }

    #[test]
    fn what_was_removed_unread_stops() {
        assert_eq!(start_offset(known(Some(100), (101, 200), 0)), Err(StartRefused::Removed));
        let done = OffsetNote { done: vec![(100, 150)], ..OffsetNote::at(100) };
        let all_done = Known { note: Some(done.clone()), ..known(None, (150, 200), 90) };
        assert_eq!(start_offset(all_done), Ok(done));
    }
}
