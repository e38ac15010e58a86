//! Deduplication tables: a UUIDv7 goes to the partition of its creation day, any other id to `inbox_misc` or
//! `queue_dedup_misc`.

use sagabus_core::{MessageId, Timestamp};
use std::time::Duration;

const DAY: i64 = 86_400_000_000;

/// What an id says about its age, and so where its gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DedupSlot {
    /// Younger than the horizon: the partition of this day.
    Day(i64),
    /// Older, future-dated or without a date: remembered by arrival, but the partition of its day, if it has one, may
    /// know it from a time when it was young.
    Misc(Option<i64>),
}

impl DedupSlot {
    /// The day whose partition may know it.
    pub(crate) fn day(self) -> Option<i64> {
        match self {
            DedupSlot::Day(day) => Some(day),
            DedupSlot::Misc(day) => day,
        }
    }
}

/// The age of an id. A clock that is a little ahead makes an id of tomorrow, which is usual.
pub(crate) fn dedup_slot(id: MessageId, now: Timestamp, horizon: Duration) -> DedupSlot {
    let reach = i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX);
    let (today, oldest) = (now.0.div_euclid(DAY), now.0.saturating_sub(reach).div_euclid(DAY));
    match id.day() {
        Some(day) if (oldest..=today + 1).contains(&day) => DedupSlot::Day(day),
        day => DedupSlot::Misc(day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn born(day: i64) -> MessageId {
        let millis = u128::try_from(day * 86_400_000).unwrap();
        MessageId(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62)))
    }

    #[test]
    fn ids_of_an_ordinary_age_go_by_their_day() {
        let (now, week) = (Timestamp(20_000 * DAY + 5), Duration::from_secs(7 * 86_400));
        for day in [19_993, 20_000, 20_001] {
            assert_eq!(dedup_slot(born(day), now, week), DedupSlot::Day(day));
        }
        for day in [19_992, 20_002] {
            assert_eq!(dedup_slot(born(day), now, week), DedupSlot::Misc(Some(day)));
        }
        assert_eq!(dedup_slot(MessageId::from_foreign("x"), now, week), DedupSlot::Misc(None));
    }
}
