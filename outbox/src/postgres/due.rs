//! Rows of the due tables whose time has come.

use super::{
    open::OpenSchema,
    sql::{self, NOW, Reader, Sql},
};
use crate::wakeups::{LastSeen, WakeKey};
use sagabus_core::{DuePage, DueQuery, DueRow, Envelope, Error, Result, RowGate, RowTable, Timestamp, sabotage};
use std::{sync::PoisonError, time::Duration};

/// The time between two searches for parked messages whose saga came while they were being parked: two transactions that
/// did not see each other.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The first columns of a row, whatever the table.
const COLUMNS: &str = "t.id,t.token,t.due,t.shard,t.handler";

impl OpenSchema {
    pub(crate) async fn due(&self, query: &DueQuery, last_seen: &LastSeen) -> Result<DuePage> {
        self.wakeups.reading(&WakeKey::Due(query.endpoint.clone()), last_seen);
        let sql = match query.table {
            RowTable::Timer => self.plain(query, "timer", "0::int as attempts,null::text as order_key", ""),
            RowTable::Retry => self.plain(query, "retry", "t.attempts,t.order_key", ""),
            RowTable::DeadLetter => {
                self.plain(query, "dead_letter", "t.attempts,null::text as order_key", " and t.due is not null")
            }
            RowTable::Parked => {
                self.sweep(query).await?;
                self.parked(query)
            }
            _ => return Err(Error::invalid("a queue is read through `Queues`, not through `due`")),
        };
        let mut page = DuePage::default();
        for row in self.read("read due rows", sql).await? {
            let mut row = Reader::new(&row);
            let now = row.time()?;
            match row.get::<Option<i64>>()? {
                Some(id) => page.rows.push(due_row(query.table, id, &mut row)?),
                None => {
                    row.get::<Option<i64>>()?;
                    page.next = Some(row.time()?.since(now));
                }
            }
        }
        if query.table == RowTable::Timer && sabotage::active("timer-delete-early") {
            let ids: Vec<i64> = page.rows.iter().map(|row| row.gate.id).collect();
            self.write(
                "delete timers early",
                Sql::new(format!("delete from {}timer where id=any($1)", self.s)).with(ids),
            )
            .await?;
        }
        Ok(page)
    }

    /// A page: (now, id, token, due, shard, handler, attempts, order key, headers, body), and at the end a row without id
    /// whose due is that of the next row.
    fn plain(&self, query: &DueQuery, table: &str, more: &str, filter: &str) -> Sql {
        let s = &self.s;
        let (due, id) = query.after.map_or((i64::MIN, i64::MIN), |(due, id)| (due.0, id));
        let same = format!("t.endpoint||''=$1 and t.shard=any($2::smallint[]){filter}");
        Sql::new(format!(
            "with n as (select {NOW} as now),r as materialized (select {COLUMNS},{more},t.headers,t.body from {s}{table} t \
             where {same} and t.due<={NOW} and (t.due,t.id+0)>($3,$4) order by t.due,t.id+0 limit $5) select * from (select \
             n.now,r.* from n,r order by r.due,r.id) x union all select n.now,null,null,x.due,null,null,null,null,null,null \
             from n,(select t.due from {s}{table} t where {same} and (t.due,t.id+0)>(coalesce((select max(due) from \
             r),$3),coalesce((select id from r order by due desc,id desc limit 1),$4)) order by t.due,t.id+0 limit 1) x"
        ))
        .with(&*query.endpoint)
        .with(sql::shards(&query.shards))
        .with(due)
        .with(id)
        .with(sql::limit(query.limit))
    }

    /// Of messages parked for their turn only the first of each line counts, if nobody of the line is being retried. The
    /// lines are found by leaping from one to the next in the index: a line may be long.
    fn parked(&self, query: &DueQuery) -> Sql {
        let s = &self.s;
        let (due, id) = query.after.map_or((i64::MIN, i64::MIN), |(due, id)| (due.0, id));
        let columns = format!("{COLUMNS},t.attempts,t.order_key,t.headers,t.body");
        Sql::new(format!(
            "with recursive n as (select {NOW} as now),line(handler,order_key) as ((select t.handler,t.order_key from \
             {s}parked t where t.endpoint=$1 and t.order_key is not null order by t.handler,t.order_key limit 1) union all \
             select y.handler,y.order_key from line l,lateral (select t.handler,t.order_key from {s}parked t where \
             t.endpoint=$1 and t.order_key is not null and (t.handler,t.order_key)>(l.handler,l.order_key) order by \
             t.handler,t.order_key limit 1) y),head as (select y.* from line l,lateral (select t.id,t.due,t.shard from \
             {s}parked t where t.endpoint=$1 and t.handler=l.handler and t.order_key=l.order_key order by t.id limit 1) y \
             where not exists(select 1 from {s}retry r where r.endpoint=$1 and r.handler=l.handler and \
             r.order_key=l.order_key offset 0)),chosen as materialized ((select y.id,y.due from head y where \
             y.shard=any($2::smallint[]) and (y.due,y.id)>($3,$4)) union all (select t.id,t.due from {s}parked t where \
             t.endpoint||''=$1 and t.order_key is null and t.shard=any($2::smallint[]) and (t.due,t.id+0)>($3,$4) order by \
             t.due,t.id+0 limit $5+1) order by due,id limit $5+1),r as materialized (select c.id from chosen c where \
             c.due<={NOW} order by c.due,c.id limit $5) select * from (select n.now,{columns} from n,r join {s}parked t on \
             t.id=any(array[r.id]) order by t.due,t.id) x union all select \
             n.now,null,null,x.due,null,null,null,null,null,null from n,(select c.due from chosen c where c.id not in \
             (select id from r) order by c.due,c.id limit 1) x"
        ))
        .with(&*query.endpoint)
        .with(sql::shards(&query.shards))
        .with(due)
        .with(id)
        .with(sql::limit(query.limit))
    }

    async fn sweep(&self, query: &DueQuery) -> Result<()> {
        let now = self.runtime().elapsed();
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            let last = swept.insert(query.endpoint.clone(), now);
            if let Some(last) = last.filter(|last| now.saturating_sub(*last) < SWEEP_INTERVAL) {
                swept.insert(query.endpoint.clone(), last);
                return Ok(());
            }
        }
        let s = &self.s;
        let sql = Sql::new(format!(
            "update {s}parked t set due={NOW},token=t.token+1 where t.endpoint||''=$1 and t.order_key is null and \
             t.due>{NOW} and (exists(select 1 from {s}saga s where s.kind=t.kind and s.key=t.key and \
             s.completed_at is null offset 0) or exists(select a.instance from {s}saga_alias a where \
             (a.alias||'='||a.value)=t.key and (a.kind=t.kind) is true offset 0))"
        ))
        .with(&*query.endpoint);
        self.write("look for parked messages whose saga has come", sql).await?;
        Ok(())
    }
}

fn due_row(table: RowTable, id: i64, row: &mut Reader<'_>) -> Result<DueRow> {
    let (token, due) = (row.get()?, row.time()?);
    Ok(DueRow {
        gate: RowGate { table, id, token },
        due: Timestamp(due.0),
        shard: row.shard()?,
        handler: row.text()?.into(),
        attempts: row.count()?,
        key: row.maybe_text()?,
        message: message(row)?,
    })
}

/// Headers and body.
pub(crate) fn message(row: &mut Reader<'_>) -> Result<Envelope> {
    let headers = row.headers()?;
    Ok(Envelope::new(headers, row.bytes()?))
}
