//! Where a message's id is remembered, by the inbox and by queues: in the partition of the day that it carries, or in
//! `inbox_misc` or `queue_dedup_misc`.
//!
//! An id of a usual age has its day's partition and nothing else. Any other id has a row in the table `_misc`, and one in
//! its day's partition too as long as that partition exists: so two processes that disagree about an id's age, because
//! midnight has passed for one of them only, still meet on one unique key.

use super::{open::OpenSchema, pool::Conn, sql, sql::Sql};
use crate::dedup::{DedupSlot, MICROS_PER_DAY, day_of};
use sagabus_core::{MessageId, Result, Timestamp};
use std::{
    collections::BTreeSet,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// The tables with a partition per day, and the other columns of a first row of each.
const PARTITIONED_TABLES: [(&str, &str); 2] = [
    ("inbox", "'00000000-0000-0000-0000-000000000000','',''"),
    ("queue_dedup", "'00000000-0000-0000-0000-000000000000',0"),
];
/// The number of days for which partitions are made ahead.
const DAYS_AHEAD: i64 = 8;

/// The partitions that exist, as far as known, and the offset of the database's clock.
#[derive(Default)]
pub(crate) struct DedupPartitions {
    known: RwLock<BTreeSet<i64>>,
    /// How far the database's clock is ahead of ours, in microseconds.
    ahead: AtomicI64,
}

fn whole_days(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).div_euclid(MICROS_PER_DAY).clamp(1, 3650)
}

impl DedupPartitions {
    pub(crate) fn set_clock(&self, ours: Timestamp, theirs: Timestamp) {
        self.ahead.store(theirs.0.saturating_sub(ours.0), Ordering::Relaxed);
    }

    /// The day at the database, near enough.
    fn today(&self, ours: Timestamp) -> i64 {
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

impl OpenSchema {
    /// Where a message is remembered.
    pub(crate) fn dedup_slot(&self, id: MessageId) -> DedupSlot {
        self.partitions.slot(id, self.runtime().now(), self.options.horizon)
    }

    /// Reads which partitions there are.
    pub(crate) async fn load_partitions(&self, conn: &mut Conn) -> Result<()> {
        let known = self.list_partitions(conn).await?;
        *self.partitions.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Creates the missing partitions of all usual days, and reads which there are.
    pub(crate) async fn create_partitions(&self, conn: &mut Conn) -> Result<()> {
        let what = "make the partitions of the days";
        let before = self.runtime().now();
        let rows = Sql::new(format!("select {}", sql::NOW)).run(conn).await.map_err(super::error::doing(what))?;
        let now = rows.first().map_or(Ok(before), |row| sql::Reader::new(row).time())?;
        self.partitions.set_clock(before, now);
        let today = day_of(now);
        let wanted: BTreeSet<i64> = (today - whole_days(self.options.horizon) - 1..=today + DAYS_AHEAD).collect();
        let known = self.list_partitions(conn).await?;
        let missing: Vec<i64> = wanted.difference(&known).copied().collect();
        if missing.is_empty() {
            *self.partitions.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            return Ok(());
        }
        let schema = self.address.schema.quoted();
        let mut script =
            format!("begin;set local lock_timeout='5s';select pg_advisory_xact_lock({});", self.lock_key());
        for (day, (table, row)) in missing.iter().flat_map(|day| PARTITIONED_TABLES.map(|table| (day, table))) {
            let (name, next) = (format!("{schema}.{table}_{day}"), day + 1);
            // a first page, so that no plan takes the table for one that costs nothing to read as a whole
            script.push_str(&format!(
                "do $do$ begin if to_regclass('{name}') is null then create table {name} (like {schema}.{table} \
                 including all) with (vacuum_truncate=false);insert into {name} values ({day},{row});delete from {name};\
                 alter table {schema}.{table} attach partition {name} for values from ({day}) to ({next});end if;end \
                 $do$;"
            ));
        }
        script.push_str("commit");
        if let Err(error) = sql::script(conn, script).await {
            // whatever is open ends with the connection
            conn.discard();
            return Err(super::error::failed(what, error));
        }
        self.load_partitions(conn).await
    }

    /// The days of which every table has its partition.
    async fn list_partitions(&self, conn: &mut Conn) -> Result<BTreeSet<i64>> {
        let text = "select substring(c.relname from '[0-9]+$')::bigint from unnest($1::text[]) w(name) join pg_inherits i \
                    on i.inhparent=to_regclass(w.name) join pg_class c on c.oid=i.inhrelid where c.relname ~ '_[0-9]+$' \
                    group by 1 having count(*)=cardinality($1::text[])";
        let schema = self.address.schema.quoted();
        let sql = Sql::new(text).with(PARTITIONED_TABLES.map(|(table, _)| format!("{schema}.{table}")).to_vec());
        let rows = sql.run(conn).await.map_err(super::error::doing("list the partitions of the days"))?;
        rows.iter().map(|row| sql::Reader::new(row).get()).collect()
    }

    /// Drops the partitions of days that are two horizons old. Returns how many inbox rows they held.
    pub(crate) async fn drop_old_partitions(&self, conn: &mut Conn, horizon: Duration) -> Result<u64> {
        let what = "drop old partitions";
        let horizon = whole_days(self.options.horizon.max(horizon));
        let last = self.partitions.today(self.runtime().now()) - 2 * horizon - 1;
        let schema = self.address.schema.quoted();
        let mut dropped = 0;
        for day in self.list_partitions(conn).await?.range(..last).copied().collect::<Vec<_>>() {
            let count = Sql::new(format!("select count(*) from {schema}.inbox_{day}"));
            let rows = count.run(conn).await.map_err(super::error::doing(what))?;
            let count: i64 = rows.first().map_or(Ok(0), |row| sql::Reader::new(row).get())?;
            // forgotten first: this process stops using a partition that is on its way out
            self.partitions.known.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
            // dropping locks the parent for a moment: not while it is held for long
            let tables =
                PARTITIONED_TABLES.map(|(table, _)| format!("drop table if exists {schema}.{table}_{day};")).concat();
            let script = format!("begin;set local lock_timeout='200ms';{tables}commit");
            if let Err(error) = sql::script(conn, script).await {
                conn.discard();
                return Err(super::error::failed(what, error));
            }
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
