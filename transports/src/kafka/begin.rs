//! Where to begin with a partition, or why not: what the group, the topic and the store say of it must fit together.

use super::{lane::Place, progress::Note};

/// What is known of a partition.
pub(super) struct Facts<'a> {
    /// What the group has committed.
    pub(super) note: Option<Note>,
    /// The first offset that is there, and the one that comes next.
    pub(super) ends: (i64, i64),
    /// Which ranges are wanted; `None` for all.
    pub(super) wanted: Option<&'a [(i64, i64)]>,
    /// Everything below was handled, says the store; 0 if it knows nothing.
    pub(super) base: i64,
    /// At an offset below the base lies another message than the one that was handled.
    pub(super) stranger: bool,
}

/// Why a partition cannot be taken over: a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Messages were removed before they were handled.
    Removed,
    /// The group is behind what the store knows to be handled.
    SetBack { offset: i64 },
    /// The topic ends before the offset to go on from.
    TooShort { from: i64 },
    /// It is another topic of the same name.
    Stranger,
    /// The same, of an event's topic: it ends before the subscription begins.
    Unsubscribed { from: i64 },
}

pub(super) fn begin(facts: Facts<'_>) -> Result<Note, Trouble> {
    let Facts { note, ends: (low, high), wanted, base, stranger } = facts;
    if stranger {
        return Err(Trouble::Stranger);
    }
    if base > high {
        return Err(Trouble::TooShort { from: base });
    }
    if let Some((from, _)) =
        wanted.and_then(|ranges| ranges.last()).filter(|(from, until)| *from > high && *until == i64::MAX)
    {
        return Err(Trouble::Unsubscribed { from: *from });
    }
    let note = match note {
        // what is committed is written down here only afterwards: so this is no trace of a process that died
        Some(note) if note.base < base => return Err(Trouble::SetBack { offset: note.base }),
        Some(note) if note.base > high => return Err(Trouble::TooShort { from: note.base }),
        Some(note) => note,
        // the group was forgotten, and the store knows where it was
        None if base > 0 => Note::at(base),
        None => {
            let begin = wanted.and_then(|ranges| ranges.first()).map_or(low, |(from, _)| *from);
            return Ok(Note::at(begin.max(low)));
        }
    };
    if note.unfinished(note.base, low) > 0 {
        return Err(Trouble::Removed);
    }
    Ok(note)
}

impl Trouble {
    /// What to tell about a partition of which everything below `base` was handled, and which ends at `high`.
    pub(super) fn text(self, queue: &str, (topic, partition): &Place, group: &str, (base, high): (i64, i64)) -> String {
        let what = format!("receive from {queue}: partition {partition} of topic {topic}");
        let reset = format!("position reset {queue} kafka:{topic} {partition} --to");
        match self {
            Trouble::Removed => format!(
                "{what}: kafka removed messages that were not handled (its retention is too short); stop the endpoint and \
                 set the offset of group {group} to go on"
            ),
            Trouble::SetBack { offset } => format!(
                "{what}: the offset of group {group} is {offset}, and everything below {base} was handled: it was set back; \
                 set it to {base} to go on, or do `{reset} {offset}` (docs/kafka.md, replay) to handle the messages again"
            ),
            Trouble::TooShort { from } => format!(
                "{what}: it ends at {high}, and everything below {from} was handled: it was removed and made again, or cut \
                 off; do `{reset} 0` (docs/kafka.md, replay), and set the offset of group {group} to where to begin"
            ),
            Trouble::Stranger => format!(
                "{what}: below {base}, where everything was handled, lie other messages now: it was removed and made again; \
                 do `{reset} 0` (docs/kafka.md, replay), and set the offset of group {group} to where to begin"
            ),
            Trouble::Unsubscribed { from } => format!(
                "{what}: it ends at {high}, and {queue} has subscribed from {from} on: it was removed and made again; remove \
                 the topic of the endpoint's subscriptions too, and start the endpoint to subscribe anew"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(note: Option<i64>, ends: (i64, i64), base: i64) -> Facts<'static> {
        Facts { note: note.map(Note::at), ends, wanted: None, base, stranger: false }
    }

    #[test]
    fn a_group_that_is_at_the_base_or_before_it_goes_on() {
        for (offset, base) in [(100, 0), (100, 99), (100, 100)] {
            assert_eq!(begin(facts(Some(offset), (0, 200), base)), Ok(Note::at(offset)));
        }
        // nothing is left of the topic, and nothing is missing
        assert_eq!(begin(facts(Some(200), (200, 200), 200)), Ok(Note::at(200)));
    }

    #[test]
    fn a_group_that_was_set_back_stops() {
        assert_eq!(begin(facts(Some(99), (0, 200), 100)), Err(Trouble::SetBack { offset: 99 }));
        assert_eq!(begin(facts(Some(0), (0, 200), 100)), Err(Trouble::SetBack { offset: 0 }));
        let place = (std::sync::Arc::from("t.cmd.shop"), 3);
        let text = Trouble::SetBack { offset: 7 }.text("shop", &place, "t.shop", (100, 200));
        for part in ["t.cmd.shop", "partition 3", "is 7", "below 100", "position reset shop kafka:t.cmd.shop 3 --to 7"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_group_that_was_forgotten_goes_on_where_the_store_says() {
        assert_eq!(begin(facts(None, (0, 200), 100)), Ok(Note::at(100)));
        assert_eq!(begin(facts(None, (150, 200), 100)), Err(Trouble::Removed));
        assert_eq!(begin(facts(None, (50, 200), 0)), Ok(Note::at(50)), "it has never been here");
    }

    #[test]
    fn another_topic_of_the_same_name_stops() {
        assert_eq!(begin(facts(None, (0, 20), 100)), Err(Trouble::TooShort { from: 100 }));
        assert_eq!(begin(facts(Some(100), (0, 20), 0)), Err(Trouble::TooShort { from: 100 }));
        let stranger = Facts { stranger: true, ..facts(Some(100), (0, 200), 100) };
        assert_eq!(begin(stranger), Err(Trouble::Stranger));
        let event = |wanted| Facts { wanted: Some(wanted), ..facts(None, (0, 20), 0) };
        assert_eq!(begin(event(&[(0, 5), (30, i64::MAX)])), Err(Trouble::Unsubscribed { from: 30 }));
        assert_eq!(begin(event(&[(20, i64::MAX)])), Ok(Note::at(20)));
        assert_eq!(begin(event(&[(30, 40)])), Ok(Note::at(30)), "it is not subscribed any more");
    }

    #[test]
    fn what_was_removed_unread_stops() {
        assert_eq!(begin(facts(Some(100), (101, 200), 0)), Err(Trouble::Removed));
        let done = Note { done: vec![(100, 150)], ..Note::at(100) };
        let all_done = Facts { note: Some(done.clone()), ..facts(None, (150, 200), 90) };
        assert_eq!(begin(all_done), Ok(done));
    }
}
