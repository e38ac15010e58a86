//! Where the inbox remembers a message: in the partition of the day that its id carries, or in `inbox_misc`.
//!
//! An id of a usual age has its day's partition and nothing else. Any other id has a row in `inbox_misc`, and one in its
//! day's partition too as long as that partition exists: so two processes that disagree about an id's age, because
//! midnight has passed for one of them only, still meet on one unique key.

use super::{open::Inner, pool::Conn, sql, sql::Sql};
use sagabus_core::{MessageId, Result, Timestamp};
use std::{
    collections::BTreeSet,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

const DAY: i64 = 86_400_000_000;
/// Partitions are made so many days ahead.
const AHEAD: i64 = 8;

/// What is known of the partitions, and of the database's clock.
#[derive(Default)]
pub(crate) struct Days {
    known: RwLock<BTreeSet<i64>>,
    /// How far the database's clock is ahead of ours, in microseconds.
    ahead: AtomicI64,
}

/// Where a message is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// In the partition of this day.
    pub(crate) day: Option<i32>,
    /// In `inbox_misc`.
    pub(crate) misc: bool,
}

fn day_of(time: Timestamp) -> i64 {
    time.0.div_euclid(DAY)
}

fn days(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).div_euclid(DAY).clamp(1, 3650)
}

impl Days {
    pub(crate) fn set_clock(&self, ours: Timestamp, theirs: Timestamp) {
        self.ahead.store(theirs.0.saturating_sub(ours.0), Ordering::Relaxed);
    }

    /// The day at the database, near enough.
    fn today(&self, ours: Timestamp) -> i64 {
        day_of(Timestamp(ours.0.saturating_add(self.ahead.load(Ordering::Relaxed))))
    }

    /// `Err` names a day whose partition should exist and is not known to.
    pub(crate) fn place(&self, id: MessageId, ours: Timestamp, horizon: Duration) -> Result<Place, i64> {
        let today = self.today(ours);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(born) = id.day() else { return Ok(Place { day: None, misc: true }) };
        let usual = born <= today + 1 && born >= today - days(horizon);
        match (known.contains(&born), usual) {
            (false, true) => Err(born),
            (false, false) => Ok(Place { day: None, misc: true }),
            (true, usual) => Ok(Place { day: i32::try_from(born).ok(), misc: !usual }),
        }
    }
}

impl Inner {
    /// Where a message is remembered. Makes partitions that are missing.
    pub(crate) async fn place(&self, id: MessageId) -> Result<Place> {
        let (now, horizon) = (self.runtime().now(), self.options.horizon);
        if let Ok(place) = self.days.place(id, now, horizon) {
            return Ok(place);
        }
        let mut conn = self.work.take().await?;
        self.make_days(&mut conn).await?;
        conn.release();
        // a day that could not be made is one for which the server has refused us; the insert will say so
        Ok(self
            .days
            .place(id, now, horizon)
            .unwrap_or(Place { day: id.day().and_then(|day| i32::try_from(day).ok()), misc: false }))
    }

    /// Sees to it that the partitions of all usual days exist, and learns which there are.
    pub(crate) async fn make_days(&self, conn: &mut Conn) -> Result<()> {
        let what = "make the partitions of the inbox";
        let before = self.runtime().now();
        let rows = Sql::new(format!("select {}", sql::NOW)).run(conn).await.map_err(super::error::doing(what))?;
        let now = rows.first().map_or(Ok(before), |row| sql::Reader::new(row).time())?;
        self.days.set_clock(before, now);
        let today = day_of(now);
        let wanted: BTreeSet<i64> = (today - days(self.options.horizon) - 1..=today + AHEAD).collect();
        let mut known = self.known_days(conn).await?;
        let missing: Vec<i64> = wanted.difference(&known).copied().collect();
        if !missing.is_empty() {
            let schema = self.address.schema.quoted();
            let mut script =
                format!("begin;set local lock_timeout='5s';select pg_advisory_xact_lock({});", self.lock_key());
            for day in &missing {
                let next = day + 1;
                script.push_str(&format!(
                    "do $do$ begin if to_regclass('{schema}.inbox_{day}') is null then \
                     create table {schema}.inbox_{day} (like {schema}.inbox including all); \
                     alter table {schema}.inbox attach partition {schema}.inbox_{day} for values from ({day}) to ({next}); \
                     end if; end $do$;"
                ));
            }
            script.push_str("commit");
            if let Err(error) = sql::script(conn, script).await {
                // whatever is open ends with the connection
                conn.spoil();
                return Err(super::error::failed(what, error));
            }
            known = self.known_days(conn).await?;
        }
        *self.days.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    async fn known_days(&self, conn: &mut Conn) -> Result<BTreeSet<i64>> {
        let text = "select substring(c.relname from 7)::bigint from pg_inherits i join pg_class c on c.oid=i.inhrelid \
                    where i.inhparent=to_regclass($1) and c.relname ~ '^inbox_[0-9]+$'";
        let sql = Sql::new(text).with(format!("{}.inbox", self.address.schema.quoted()));
        let rows = sql.run(conn).await.map_err(super::error::doing("list the partitions of the inbox"))?;
        rows.iter().map(|row| sql::Reader::new(row).get()).collect()
    }

    /// Drops the partitions of days that are two horizons old. Returns how many rows they held.
    pub(crate) async fn drop_days(&self, conn: &mut Conn, horizon: Duration) -> Result<u64> {
        let what = "drop old partitions of the inbox";
        let horizon = days(self.options.horizon.max(horizon));
        let last = self.days.today(self.runtime().now()) - 2 * horizon - 1;
        let schema = self.address.schema.quoted();
        let mut dropped = 0;
        for day in self.known_days(conn).await?.range(..last).copied().collect::<Vec<_>>() {
            let count = Sql::new(format!("select count(*) from {schema}.inbox_{day}"));
            let rows = count.run(conn).await.map_err(super::error::doing(what))?;
            let count: i64 = rows.first().map_or(Ok(0), |row| sql::Reader::new(row).get())?;
            // dropping locks the whole inbox for a moment: not while somebody holds it for long
            let script =
                format!("begin;set local lock_timeout='200ms';drop table if exists {schema}.inbox_{day};commit");
            if let Err(error) = sql::script(conn, script).await {
                conn.spoil();
                return Err(super::error::failed(what, error));
            }
            self.days.known.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
            dropped += u64::try_from(count).unwrap_or(0);
        }
        Ok(dropped)
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
        let days = Days::default();
        *days.known.write().unwrap() = (980..=1008).collect();
        let (now, horizon) = (Timestamp(1000 * DAY + 5), Duration::from_secs(7 * 86_400));
        let place = |id| days.place(id, now, horizon);
        let both = |day, misc| Ok(Place { day, misc });
        assert_eq!(place(born(1000)), both(Some(1000), false));
        assert_eq!(place(born(1001)), both(Some(1001), false));
        assert_eq!(place(born(993)), both(Some(993), false));
        assert_eq!(place(born(992)), both(Some(992), true));
        assert_eq!(place(born(1002)), both(Some(1002), true));
        assert_eq!(place(born(900)), both(None, true));
        assert_eq!(place(born(9000)), both(None, true));
        assert_eq!(place(MessageId(Uuid::nil())), both(None, true));
        days.known.write().unwrap().remove(&1000);
        assert_eq!(place(born(1000)), Err(1000));
        // the database is two days ahead
        days.set_clock(now, Timestamp(now.0 + 2 * DAY));
        assert_eq!(place(born(1003)), both(Some(1003), false));
        assert_eq!(place(born(994)), both(Some(994), true));
    }
}
