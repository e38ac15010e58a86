//! Partitions as tables: created ahead, listed and dropped.

use super::{
    dedup_partitions::whole_days,
    error::{doing, failed},
    open::OpenSchema,
    pool::Conn,
    sql::{self, NOW, Reader, Sql},
};
use crate::dedup::{DedupSlot, day_of};
use sagabus_core::{MessageId, Result};
use std::{collections::BTreeSet, time::Duration};

/// The tables with a partition per day, and the other columns of a first row of each.
const PARTITIONED_TABLES: [(&str, &str); 2] = [
    ("inbox", "'00000000-0000-0000-0000-000000000000','',''"),
    ("queue_dedup", "'00000000-0000-0000-0000-000000000000',0"),
];
/// The number of days for which partitions are made ahead.
const DAYS_AHEAD: i64 = 8;

impl OpenSchema {
    /// Where a message is remembered.
    pub(crate) fn dedup_slot(&self, id: MessageId) -> DedupSlot {
        self.partitions.slot(id, self.runtime().now(), self.options.horizon)
    }

    /// Reads which partitions there are.
    pub(crate) async fn load_partitions(&self, conn: &mut Conn) -> Result<()> {
        let known = self.list_partitions(conn).await?;
        self.partitions.set_known(known);
        Ok(())
    }

    /// Creates the missing partitions of all usual days, and reads which there are.
    pub(crate) async fn create_partitions(&self, conn: &mut Conn) -> Result<()> {
        let what = "make the partitions of the days";
        let before = self.runtime().now();
        let rows = Sql::new(format!("select {NOW}")).run(conn).await.map_err(doing(what))?;
        let now = rows.first().map_or(Ok(before), |row| Reader::new(row).time())?;
        self.partitions.set_clock(before, now);
        let today = day_of(now);
        let wanted: BTreeSet<i64> = (today - whole_days(self.options.horizon) - 1..=today + DAYS_AHEAD).collect();
        let known = self.list_partitions(conn).await?;
        let missing: Vec<i64> = wanted.difference(&known).copied().collect();
        if missing.is_empty() {
            self.partitions.set_known(known);
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
            return Err(failed(what, error));
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
        let rows = sql.run(conn).await.map_err(doing("list the partitions of the days"))?;
        rows.iter().map(|row| Reader::new(row).get()).collect()
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
            let rows = count.run(conn).await.map_err(doing(what))?;
            let count: i64 = rows.first().map_or(Ok(0), |row| Reader::new(row).get())?;
            // forgotten first: this process stops using a partition that is on its way out
            self.partitions.remove(day);
            // dropping locks the parent for a moment: not while it is held for long
            let tables =
                PARTITIONED_TABLES.map(|(table, _)| format!("drop table if exists {schema}.{table}_{day};")).concat();
            let script = format!("begin;set local lock_timeout='200ms';{tables}commit");
            if let Err(error) = sql::script(conn, script).await {
                conn.discard();
                return Err(failed(what, error));
            }
            dropped += u64::try_from(count).unwrap_or(0);
        }
        Ok(dropped)
    }
}
