//! Retention.

use super::{
    error::failed,
    open::OpenSchema,
    sql::{NOW, Reader, Sql, micros},
};
use sagabus_core::Result;
use std::time::Duration;

/// Rows that one statement removes, at most: a long delete holds locks and snapshots.
const ROWS_PER_DELETE: i64 = 5_000;

impl OpenSchema {
    /// Drops what is older than the horizon, and kept sagas whose time is up. Returns how many rows, those apart that only
    /// kept a repeated send from being taken for a new one.
    pub(crate) async fn prune(&self, horizon: Duration) -> Result<u64> {
        let s = &self.s;
        let old = micros(horizon);
        let mut dropped = 0;
        for (table, key, past) in [
            ("inbox_misc", "message_id,handler,endpoint", "at<="),
            ("attempt", "message_id,handler,endpoint", "at<="),
            ("saga", "kind,key", "expires_at<=$1::bigint+"),
        ] {
            let condition = match table {
                "saga" => format!("{past}{NOW}"),
                _ => format!("{past}{NOW}-$1::bigint"),
            };
            let age = if table == "saga" { 0 } else { old };
            dropped += self.prune_table(table, key, &condition, age).await?;
        }
        // an id that still waits in the queue is remembered as long as it waits
        let waits = format!(
            "at<={NOW}-$1::bigint and not exists(select 1 from {s}queue q where q.message_id=queue_dedup_misc.message_id)"
        );
        self.prune_table("queue_dedup_misc", "message_id,queue", &waits, old).await?;
        let nodes = Sql::new(format!(
            "delete from {s}node n where n.lease_until+$1<={NOW} and not exists(select 1 from {s}shard h where \
             h.grp=n.grp and h.node=n.node)"
        ));
        self.write("forget nodes", nodes.with(old)).await?;
        let mut conn = self.work.take().await?;
        dropped += self.drop_old_partitions(&mut conn, horizon).await?;
        self.create_partitions(&mut conn).await?;
        conn.release();
        Ok(dropped)
    }

    async fn prune_table(&self, table: &str, key: &str, condition: &str, age: i64) -> Result<u64> {
        let s = &self.s;
        let what = "drop rows past their time";
        let mut dropped = 0;
        loop {
            let sql = Sql::new(format!(
                "with d as (delete from {s}{table} where ({key}) in (select {key} from {s}{table} where {condition} limit \
                 {ROWS_PER_DELETE}) and {condition} returning 1) select count(*) from d"
            ));
            let mut conn = self.work.take().await?;
            let rows = sql.with(age).run(&mut conn).await.map_err(|error| failed(what, error));
            conn.release();
            let count: i64 = rows?.first().map_or(Ok(0), |row| Reader::new(row).get())?;
            dropped += u64::try_from(count).unwrap_or(0);
            if count < ROWS_PER_DELETE {
                return Ok(dropped);
            }
        }
    }
}
