//! The partition or table of the SQL stores that remembers a message's id.
//!
//! An id of a usual age is remembered in the partition of the day that it carries. Any other id is remembered in a table
//! `…_misc`. The partition of its day, if there is one, may know it from a time when its age was usual.

use sagabus_core::{MessageId, Timestamp};

/// The length of a day, in microseconds.
pub(crate) const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The day of a moment, counted from 1970.
pub(crate) fn day_of(time: Timestamp) -> i64 {
    time.0.div_euclid(MICROS_PER_DAY)
}

/// The partition or table that remembers an id, in the inbox or among the ids that a queue has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DedupSlot {
    /// The day whose partition may know the id.
    pub(crate) day: Option<i32>,
    /// The id is remembered in the table `…_misc`, because its age is not usual.
    pub(crate) misc: bool,
}

impl DedupSlot {
    /// The slot of an id without a date.
    pub(crate) const UNDATED: Self = Self { day: None, misc: true };

    /// The slot of an id. Ages from the day `oldest` to tomorrow are usual: a clock may be a little ahead.
    pub(crate) fn for_id(id: MessageId, oldest: i64, today: i64) -> Self {
        match id.day() {
            Some(day) => Self { day: i32::try_from(day).ok(), misc: !(oldest..=today + 1).contains(&day) },
            None => Self::UNDATED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn ids_of_a_usual_age_have_their_day_and_no_others() {
        let born = |day: u64| MessageId(Uuid::from_u128((u128::from(day * 86_400_000) << 80) | (7 << 76) | (2 << 62)));
        let slot = |id| DedupSlot::for_id(id, 19_993, 20_000);
        for day in [19_993, 20_000, 20_001] {
            assert_eq!(slot(born(day)), DedupSlot { day: i32::try_from(day).ok(), misc: false });
        }
        for day in [19_992, 20_002] {
            assert_eq!(slot(born(day)), DedupSlot { day: i32::try_from(day).ok(), misc: true });
        }
        assert_eq!(slot(MessageId::from_foreign("x")), DedupSlot::UNDATED);
        assert_eq!(day_of(Timestamp(20_000 * MICROS_PER_DAY + 5)), 20_000);
        assert_eq!(day_of(Timestamp(-1)), -1);
    }
}
