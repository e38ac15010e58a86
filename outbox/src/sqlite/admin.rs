//! Looking in and operating from outside.

use super::{
    load::saga_row,
    open::OpenFile,
    rows::{envelope, envelope_or_report},
    sql::{self, Rows, Step},
    store::SqliteStore,
};
use async_trait::async_trait;
use sagabus_core::{
    AuditEntry, DeadLetter, MessageId, PendingTimer, Position, PositionReset, Result, SagaAddress, SagaRow, StoreAdmin,
    TimerId, Timestamp,
};
use sqlx::sqlite::SqliteRow;
use std::{collections::BTreeMap, sync::Arc};

const DEAD_LETTERS: &str = "select id,handler,at,attempts,reason,detail,due is not null,headers,body from dead_letter \
                            where endpoint=? and id>? order by id limit ?";

const TIMERS: &str = "select timer_id,due,id,headers,body from timer where endpoint=?1 and \
                      (due,id)>(?2,?3) order by due,id limit ?4";

const SAGA: &str = "select 0,s.instance,s.version,s.state,s.schema,s.origin,s.completed_at is not null from saga s where \
                    s.kind=? and s.key=?";

static RETRY: Rows = Rows::new(
    "update dead_letter set due=?,token=token+1 where +endpoint=? and due is null and id in (values ",
    "(?)",
    ")",
);

static DISCARD: Rows = Rows::new("delete from dead_letter where +endpoint=? and id in (values ", "(?)", ")");

const MOVE_TIMER: &str = "update timer set due=?,token=token+1 where timer_id=? and endpoint=?";

const CANCEL_TIMER: &str = "delete from timer where timer_id=? and endpoint=?";

const COUNTS: &str = "select 'saga',count(*) from saga union all select 'saga_alias',count(*) from saga_alias \
    union all select 'inbox',count(*) from inbox union all select 'inbox_misc',count(*) from inbox_misc \
    union all select 'outbox',count(*) from outbox union all select 'attempt',count(*) from attempt \
    union all select 'node',count(*) from node union all select 'queue',count(*) from queue \
    union all select 'timer',count(*) from timer union all select 'retry',count(*) from retry \
    union all select 'parked',count(*) from parked union all select 'dead_letter',count(*) from dead_letter \
    union all select 'log_position',count(*) from log_position union all select 'operator_audit',count(*) from operator_audit \
    union all select 'queue_dedup',count(*) from queue_dedup \
    union all select 'queue_dedup_misc',count(*) from queue_dedup_misc";

impl SqliteStore {
    pub(super) async fn read_rows(&self, step: Step, context: &'static str) -> Result<Vec<SqliteRow>> {
        let file = self.open_file()?;
        file.read.run(&file.shared, async |connection| step.fetch(connection, context).await).await
    }
}

impl OpenFile {
    /// Changes dead letters by their ids.
    async fn change_dead_letters(
        &self,
        endpoint: &str,
        ids: &[i64],
        statement: &'static Rows,
        due: bool,
        context: &'static str,
    ) -> Result<u64> {
        let (endpoint, ids): (Arc<str>, Arc<[i64]>) = (Arc::from(endpoint), Arc::from(ids));
        self.write(move |tx| {
            let (endpoint, ids) = (Arc::clone(&endpoint), Arc::clone(&ids));
            Box::pin(async move {
                let now = tx.now;
                let head = |args: &mut sql::Args| {
                    if due {
                        args.time(now);
                    }
                    args.shared(&endpoint);
                };
                let steps = Step::rows(statement, &ids, head, |args, id| {
                    args.int(*id);
                    Ok(())
                })?;
                let mut changed = 0;
                sql::run_all(&mut tx.connection, steps, context, |_, done| {
                    changed += done.changes;
                    true
                })
                .await?;
                tx.announcements.due(&endpoint);
                Ok(changed)
            })
        })
        .await
    }

    /// Changes a timer.
    async fn change_timer(
        &self,
        endpoint: &str,
        id: TimerId,
        due: Option<Timestamp>,
        statement: &'static str,
    ) -> Result<bool> {
        let endpoint: Arc<str> = Arc::from(endpoint);
        self.write(move |tx| {
            let endpoint = Arc::clone(&endpoint);
            Box::pin(async move {
                let step = Step::with(statement, |args| {
                    if let Some(due) = due {
                        args.time(due);
                    }
                    args.id(id.0);
                    args.shared(&endpoint);
                });
                let done = step.run(&mut tx.connection, "change a timer in sqlite").await?;
                tx.announcements.due(&endpoint);
                Ok(done.changes > 0)
            })
        })
        .await
    }
}

#[async_trait]
impl StoreAdmin for SqliteStore {
    async fn dead_letters(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<DeadLetter>> {
        let step = Step::with(DEAD_LETTERS, |args| {
            args.text(endpoint);
            args.int(after);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        let rows = self.read_rows(step, "list dead letters in sqlite").await?;
        Ok(rows.iter().map(dead_letter).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    async fn retry_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        self.open_file()?.change_dead_letters(endpoint, ids, &RETRY, true, "retry dead letters in sqlite").await
    }

    async fn discard_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        self.open_file()?.change_dead_letters(endpoint, ids, &DISCARD, false, "discard dead letters in sqlite").await
    }

    async fn timers(&self, endpoint: &str, after: Option<(Timestamp, i64)>, limit: usize) -> Result<Vec<PendingTimer>> {
        let (due, row) = after.map_or((i64::MIN, i64::MIN), |(due, row)| (due.0, row));
        let step = Step::with(TIMERS, |args| {
            args.text(endpoint);
            args.int(due);
            args.int(row);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        let rows = self.read_rows(step, "list timers in sqlite").await?;
        Ok(rows.iter().map(pending).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    async fn move_timer(&self, endpoint: &str, id: TimerId, due: Timestamp) -> Result<bool> {
        self.open_file()?.change_timer(endpoint, id, Some(due), MOVE_TIMER).await
    }

    async fn cancel_timer(&self, endpoint: &str, id: TimerId) -> Result<bool> {
        self.open_file()?.change_timer(endpoint, id, None, CANCEL_TIMER).await
    }

    async fn saga(&self, kind: &str, key: &str) -> Result<Option<SagaRow>> {
        let step = Step::with(SAGA, |args| {
            args.text(kind);
            args.text(key);
        });
        let rows = self.read_rows(step, "read a saga from sqlite").await?;
        rows.first().map(|row| saga_row(row, Arc::from(kind), key.to_string())).transpose()
    }

    async fn saga_keys(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<String>> {
        let step = Step::with("select key from saga where kind=? and key>? order by key limit ?", |args| {
            args.text(kind);
            args.text(after);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        let rows = self.read_rows(step, "list sagas in sqlite").await?;
        rows.iter().map(|row| sql::column(row, 0)).collect()
    }

    async fn positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        self.list_positions(endpoint).await
    }

    async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64> {
        self.open_file()?.reset_positions(endpoint, reset).await
    }

    async fn audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        self.list_audit(endpoint, after, limit).await
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let rows = self.read_rows(Step::new(COUNTS), "count rows in sqlite").await?;
        rows.iter()
            .map(|row| Ok((sql::column(row, 0)?, u64::try_from(sql::column::<i64>(row, 1)?).unwrap_or(0))))
            .collect()
    }
}

fn dead_letter(row: &SqliteRow) -> Result<Option<DeadLetter>> {
    let id: i64 = sql::column(row, 0)?;
    let Some(message) = envelope_or_report(row, 7, "dead_letter", id) else { return Ok(None) };
    Ok(Some(DeadLetter {
        id,
        handler: sql::column(row, 1)?,
        at: Timestamp(sql::column(row, 2)?),
        attempts: u32::try_from(sql::column::<i64>(row, 3)?).unwrap_or(u32::MAX),
        reason: sql::column(row, 4)?,
        // written by us as an array of texts; anything else is shown as it is
        detail: serde_json::from_str(sql::column(row, 5)?)
            .or_else(|_| sql::column(row, 5).map(|text: String| vec![text]))?,
        retrying: sql::column(row, 6)?,
        message,
    }))
}

fn pending(row: &SqliteRow) -> Result<Option<PendingTimer>> {
    let Ok(message) = envelope(row, 3) else { return Ok(None) };
    let saga: Option<SagaAddress> = message.headers.saga;
    let id: MessageId = message.headers.message_id;
    Ok(Some(PendingTimer {
        id: TimerId(sql::uuid(row, 0)?),
        row: sql::column(row, 2)?,
        due: Timestamp(sql::column(row, 1)?),
        saga,
        message_type: message.headers.message_type,
        message_id: id,
    }))
}
