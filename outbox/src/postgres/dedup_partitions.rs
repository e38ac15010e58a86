//! Where a message's id is remembered, by the inbox and by queues: in the partition of the day that it carries, or in
//! `inbox_misc` or `queue_dedup_misc`.
//!
//! An id of a usual age has its day's partition and nothing else. Any other id has a row in the table `_misc`, and one in
//! its day's partition too as long as that partition exists: so two processes that disagree about an id's age, because
//! midnight has passed for one of them only, still meet on one unique key.

use crate::dedup::{DedupSlot, MICROS_PER_DAY, day_of};
use sagabus_core::{MessageId, Timestamp};
use std::{
    collections::BTreeSet,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// The partitions that exist, as far as known, and the offset of the database's clock.
#[derive(Default)]
pub(crate) struct DedupPartitions {
    known: RwLock<BTreeSet<i64>>,
    /// How far the database's clock is ahead of ours, in microseconds.
    ahead: AtomicI64,
}

pub(super) fn whole_days(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).div_euclid(MICROS_PER_DAY).clamp(1, 3650)
}

impl DedupPartitions {
    pub(crate) fn set_clock(&self, ours: Timestamp, theirs: Timestamp) {
        self.ahead.store(theirs.0.saturating_sub(ours.0), Ordering::Relaxed);
    }

    /// Replaces the days whose partitions are known to exist.
    pub(super) fn set_known(&self, days: BTreeSet<i64>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = days;
    }

    /// Stops using the partition of a day.
    pub(super) fn remove(&self, day: i64) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
    }

    /// The day at the database, near enough.
    pub(super) fn today(&self, ours: Timestamp) -> i64 {
        day_of(Timestamp(ours.0.saturating_add(self.ahead.load(Ordering::Relaxed))))
    }

    /// The slot of an id. A partition of a usual day is taken to exist: if it does not, the insert fails as
    /// [`NoPartition`](super::error::Fault::NoPartition), and it is made.
    pub(crate) fn slot(&self, id: MessageId, ours: Timestamp, horizon: Duration) -> DedupSlot {
        let today = self.today(ours);
        let slot = DedupSlot::for_id(id, today - whole_days(horizon), today);
        let exists = |day| self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&i64::from(day));
        DedupSlot { day: slot.day.filter(|day| !slot.misc || exists(*day)), ..slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn born(day: i64) -> MessageId {
        MessageId(Uuid::from_u128((u128::from(day.unsigned_abs() * 86_400_000) << 80) | (0x7 << 76) | (0b10 << 62)))
    }

    #[test]
    fn usual_ids_have_their_day_and_others_both() {
        let partitions = DedupPartitions::default();
        *partitions.known.write().unwrap() = (980..=1008).collect();
        let (now, horizon) = (Timestamp(1000 * MICROS_PER_DAY + 5), Duration::from_secs(7 * 86_400));
        let slot = |id| partitions.slot(id, now, horizon);
        let both = |day, misc| DedupSlot { day, misc };
        assert_eq!(slot(born(1000)), both(Some(1000), false));
        assert_eq!(slot(born(1001)), both(Some(1001), false));
        assert_eq!(slot(born(993)), both(Some(993), false));
        assert_eq!(slot(born(992)), both(Some(992), true));
        assert_eq!(slot(born(1002)), both(Some(1002), true));
        assert_eq!(slot(born(900)), both(None, true));
        assert_eq!(slot(born(9000)), both(None, true));
        assert_eq!(slot(MessageId(Uuid::nil())), both(None, true));
        partitions.known.write().unwrap().remove(&1000);
        assert_eq!(slot(born(1000)), both(Some(1000), false));
        // the database is two days ahead
        partitions.set_clock(now, Timestamp(now.0 + 2 * MICROS_PER_DAY));
        assert_eq!(slot(born(1003)), both(Some(1003), false));
        assert_eq!(slot(born(994)), both(Some(994), true));
    }
}
