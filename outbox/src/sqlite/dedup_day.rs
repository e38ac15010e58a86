//! The partition or table that remembers a message's id, by the database's clock.

use crate::dedup::{DedupSlot, day_of};
use sagabus_core::{MessageId, Timestamp};
use std::time::Duration;

/// The slot of an id: ages within the horizon are usual.
pub(crate) fn dedup_slot(id: MessageId, now: Timestamp, horizon: Duration) -> DedupSlot {
    let reach = i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX);
    DedupSlot::for_id(id, day_of(Timestamp(now.0.saturating_sub(reach))), day_of(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::MICROS_PER_DAY;
    use uuid::Uuid;

    fn born(day: i64) -> MessageId {
        let millis = u128::try_from(day * 86_400_000).unwrap();
        MessageId(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62)))
    }

    #[test]
    fn ids_of_an_ordinary_age_go_by_their_day() {
        let (now, week) = (Timestamp(20_000 * MICROS_PER_DAY + 5), Duration::from_secs(7 * 86_400));
        for day in [19_993, 20_000, 20_001] {
            assert_eq!(dedup_slot(born(day), now, week), DedupSlot { day: i32::try_from(day).ok(), misc: false });
        }
        for day in [19_992, 20_002] {
            assert_eq!(dedup_slot(born(day), now, week), DedupSlot { day: i32::try_from(day).ok(), misc: true });
        }
        assert_eq!(dedup_slot(MessageId::from_foreign("x"), now, week), DedupSlot::UNDATED);
    }
}
