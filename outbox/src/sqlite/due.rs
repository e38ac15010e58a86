//! The four tables of rows that are deliveries.

use super::{
    commit::DeleteRow,
    open::OpenFile,
    queue::shard_mask,
    rows::envelope_or_report,
    sql::{self, Step},
};
use sagabus_core::{DuePage, DueQuery, DueRow, Error, Result, RowGate, RowTable, Timestamp, sabotage};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::sync::Arc;

macro_rules! page {
    ($table:literal, $attempts:literal, $key:literal) => {
        concat!(
            "select t.id,t.token,t.due,t.shard,t.handler,",
            $attempts,
            ",",
            $key,
            ",t.headers,t.body from ",
            $table,
            " t where t.endpoint=? and (t.due,t.id)>(?,?) and t.due<=? and (1<<t.shard)&? order by t.due,t.id limit ?"
        )
    };
}

macro_rules! next {
    ($table:literal) => {
        concat!(
            "select t.due from ",
            $table,
            " t where t.endpoint=? and (t.due,t.id)>(?,?) and t.due is not null and (1<<t.shard)&? order by \
             t.due,t.id limit 1"
        )
    };
}

/// The statements of a table: a page, and when the next row is due.
pub(crate) fn statements(table: RowTable) -> Result<(&'static str, &'static str)> {
    match table {
        RowTable::Timer => Ok((page!("timer", "0", "null"), next!("timer"))),
        RowTable::Retry => Ok((page!("retry", "t.attempts", "t.order_key"), next!("retry"))),
        RowTable::Parked => Ok((page!("parked", "t.attempts", "t.order_key"), next!("parked"))),
        RowTable::DeadLetter => Ok((page!("dead_letter", "t.attempts", "null"), next!("dead_letter"))),
        other => Err(Error::invalid(format!("{} has no due times", other.name()))),
    }
}

impl OpenFile {
    pub(crate) async fn due(&self, query: &DueQuery) -> Result<DuePage> {
        let page = self.read.run(&self.shared, async |connection| page(connection, query).await).await?;
        if query.table == RowTable::Timer && sabotage::active("timer-delete-early") {
            let gates: Vec<(i64, i64)> = page.rows.iter().map(|row| (row.gate.id, row.gate.token)).collect();
            self.submit(DeleteRow(RowTable::Timer, gates)).await?;
        }
        Ok(page)
    }
}

async fn page(connection: &mut SqliteConnection, query: &DueQuery) -> Result<DuePage> {
    let (rows_of, next_of) = statements(query.table)?;
    let (shards, _) = shard_mask(&query.shards);
    let now = sql::now(connection).await?;
    let mut last = query.after.unwrap_or((Timestamp(i64::MIN), i64::MIN));
    let most = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let step = Step::with(rows_of, |args| {
        args.shared(&query.endpoint);
        args.time(last.0);
        args.int(last.1);
        args.time(now);
        args.int(shards);
        args.int(most);
    });
    let mut rows = Vec::new();
    for row in step.fetch(connection, "read due rows from sqlite").await? {
        let (due, id) = (Timestamp(sql::column(&row, 2)?), sql::column(&row, 0)?);
        last = (due, id);
        rows.extend(due_row(&row, query.table, due, id)?);
    }
    let step = Step::with(next_of, |args| {
        args.shared(&query.endpoint);
        args.time(last.0);
        args.int(last.1);
        args.int(shards);
    });
    let next = step.fetch(connection, "read due times from sqlite").await?;
    let next = next.first().map(|row| sql::column::<i64>(row, 0)).transpose()?;
    Ok(DuePage { rows, next: next.map(|due| Timestamp(due).since(now)) })
}

fn due_row(row: &SqliteRow, table: RowTable, due: Timestamp, id: i64) -> Result<Option<DueRow>> {
    let Some(message) = envelope_or_report(row, 7, table.name(), id) else { return Ok(None) };
    Ok(Some(DueRow {
        gate: RowGate { table, id, token: sql::column(row, 1)? },
        due,
        shard: u16::try_from(sql::column::<i64>(row, 3)?).unwrap_or(0),
        handler: Arc::from(sql::column::<&str>(row, 4)?),
        attempts: u32::try_from(sql::column::<i64>(row, 5)?).unwrap_or(u32::MAX),
        key: sql::column(row, 6)?,
        message,
    }))
}
