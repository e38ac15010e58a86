//! Looking into the store and operating on it from outside.

use super::{
    due::message,
    load::saga_row,
    sql::{self, NOW, Reader, Sql},
    store::PostgresStore,
    text::escape,
};
use crate::wakeups::WakeKey;
use async_trait::async_trait;
use sagabus_core::{
    AuditEntry, DeadLetter, PendingTimer, Position, PositionReset, Result, SagaAddress, SagaRow, StoreAdmin, TimerId,
    Timestamp, counted_tables,
};
use sqlx::postgres::PgRow;
use std::collections::{BTreeMap, HashSet};

impl PostgresStore {
    /// Rows may be due sooner than was known.
    fn wake_due(&self, endpoint: &str) {
        self.inner.announce(&HashSet::from([WakeKey::Due(endpoint.into())]));
    }

    async fn changed(&self, what: &str, sql: Sql) -> Result<u64> {
        Ok(self.open_inner()?.write(what, sql).await?.len() as u64)
    }
}

#[async_trait]
impl StoreAdmin for PostgresStore {
    async fn dead_letters(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<DeadLetter>> {
        let sql = Sql::new(format!(
            "select id,handler,at,attempts,reason,detail,due is not null,headers,body from {}dead_letter where \
             endpoint||''=$1 and id+0>$2 order by id+0 limit $3",
            self.inner.s
        ));
        let rows = self
            .open_inner()?
            .read("list dead letters", sql.with(endpoint).with(after).with(sql::limit(limit)))
            .await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn retry_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        let sql = Sql::new(format!(
            "update {}dead_letter set due={NOW},token=token+1 where endpoint=$1 and id=any($2) and due is null returning 1",
            self.inner.s
        ));
        let count = self.changed("send dead letters again", sql.with(endpoint).with(ids.to_vec())).await?;
        self.wake_due(endpoint);
        Ok(count)
    }

    async fn discard_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        let text = format!("delete from {}dead_letter where endpoint=$1 and id=any($2) returning 1", self.inner.s);
        self.changed("discard dead letters", Sql::new(text).with(endpoint).with(ids.to_vec())).await
    }

    async fn timers(&self, endpoint: &str, after: Option<(Timestamp, i64)>, limit: usize) -> Result<Vec<PendingTimer>> {
        let sql = Sql::new(format!(
            "select timer_id,due,kind,key,instance,headers,id from {}timer where endpoint||''=$1 and (due,id)>($3,$4) order by \
             due,id+0 limit $2",
            self.inner.s
        ));
        let (due, row) = after.map_or((i64::MIN, i64::MIN), |(due, row)| (due.0, row));
        let sql = sql.with(endpoint).with(sql::limit(limit)).with(due).with(row);
        let rows = self.open_inner()?.read("list timers", sql).await?;
        rows.iter().map(pending).collect()
    }

    async fn move_timer(&self, endpoint: &str, id: TimerId, due: Timestamp) -> Result<bool> {
        let sql = Sql::new(format!(
            "update {}timer set due=$3,token=token+1 where endpoint=$1 and timer_id=$2 returning 1",
            self.inner.s
        ));
        let count = self.changed("move a timer", sql.with(endpoint).with(id.0).with(due.0)).await?;
        self.wake_due(endpoint);
        Ok(count > 0)
    }

    async fn cancel_timer(&self, endpoint: &str, id: TimerId) -> Result<bool> {
        let text = format!("delete from {}timer where endpoint=$1 and timer_id=$2 returning 1", self.inner.s);
        Ok(self.changed("cancel a timer", Sql::new(text).with(endpoint).with(id.0)).await? > 0)
    }

    async fn saga(&self, kind: &str, key: &str) -> Result<Option<SagaRow>> {
        let sql = Sql::new(format!(
            "select kind,key,instance,version,state,schema,origin,completed_at is not null from {}saga where kind=$1 and \
             key=$2",
            self.inner.s
        ));
        let rows = self.open_inner()?.read("look at a saga", sql.with(kind).with(escape(key))).await?;
        rows.first().map(|row| saga_row(&mut Reader::new(row), None)).transpose()
    }

    async fn saga_keys(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<String>> {
        let sql =
            Sql::new(format!("select key from {}saga where kind=$1 and key>$2 order by key limit $3", self.inner.s));
        let rows =
            self.open_inner()?.read("list sagas", sql.with(kind).with(escape(after)).with(sql::limit(limit))).await?;
        rows.iter().map(|row| Reader::new(row).text()).collect()
    }

    async fn positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        self.open_inner()?.list_positions(endpoint).await
    }

    async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64> {
        self.open_inner()?.reset_positions(endpoint, reset).await
    }

    async fn audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        self.open_inner()?.list_audit(endpoint, after, limit).await
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let s = &self.inner.s;
        let count = |table: &str| match table {
            // an id of an unusual age may have a row in both, and is counted once
            "inbox" => format!(
                "select 'inbox',count(*) from {s}inbox i where not exists(select 1 from {s}inbox_misc m where \
                 m.message_id=i.message_id and m.handler=i.handler and m.endpoint=i.endpoint)"
            ),
            _ => format!("select '{table}',count(*) from {s}{table}"),
        };
        let parts: Vec<String> = counted_tables().into_iter().map(count).collect();
        let rows = self.open_inner()?.read("count rows", Sql::new(parts.join(" union all "))).await?;
        let counted = |row| {
            let mut row = Reader::new(row);
            Ok((row.get()?, u64::try_from(row.get::<i64>()?).unwrap_or(0)))
        };
        rows.iter().map(counted).collect()
    }
}

fn dead_letter(row: &PgRow) -> Result<DeadLetter> {
    let mut row = Reader::new(row);
    Ok(DeadLetter {
        id: row.get()?,
        handler: row.text()?,
        at: row.time()?,
        attempts: row.count()?,
        reason: row.text()?,
        detail: serde_json::from_str(row.get()?).unwrap_or_default(),
        retrying: row.get()?,
        message: message(&mut row)?,
    })
}

fn pending(row: &PgRow) -> Result<PendingTimer> {
    let mut row = Reader::new(row);
    let (id, due) = (TimerId(row.get()?), row.time()?);
    let (kind, key, instance) = (row.maybe_text()?, row.maybe_text()?, row.get::<Option<uuid::Uuid>>()?);
    let (headers, number) = (row.headers()?, row.get()?);
    let saga = match (kind, key, instance) {
        (Some(kind), Some(key), Some(instance)) => {
            Some(SagaAddress { kind, key, instance: sagabus_core::InstanceId(instance) })
        }
        _ => None,
    };
    Ok(PendingTimer { id, row: number, due, saga, message_type: headers.message_type, message_id: headers.message_id })
}
