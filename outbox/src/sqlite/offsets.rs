//! How far endpoints have come in logs, and what operators did to that.

use super::{
    open::OpenFile,
    sql::{self, Step},
    store::SqliteStore,
    write_context::Tx,
};
use async_trait::async_trait;
use sagabus_core::{AuditEntry, LogPartition, OffsetStore, POSITION_RESET, Position, PositionReset, Result, Timestamp};
use sqlx::sqlite::SqliteRow;
use std::sync::Arc;

const CLAIM: &str = "insert into log_position(endpoint,log,part,base,epoch,mark,at) values (?,?,?,0,1,'',?) on conflict do update \
                     set epoch=epoch+1 returning log,part,base,epoch,mark";

const ADVANCE: &str = "update log_position set mark=case when ?1>=base then ?2 else mark end,base=max(base,?1),at=?3 where \
                     endpoint=?4 and log=?5 and part=?6 and epoch=?7";

const LIST: &str = "select log,part,base,epoch,mark from log_position where endpoint=? order by log,part";

const RESET: &str =
    "update log_position set base=min(base,?1),epoch=epoch+1,mark='',at=?2 where endpoint=?3 and log=?4 and part=?5";

const INSERT_AUDIT: &str =
    "insert into operator_audit(at,endpoint,operator,action,subject,before,after,why) values (?,?,?,?,?,?,?,?)";

const AUDIT: &str = "select id,at,operator,action,subject,before,after,why from operator_audit where endpoint=? and id>? order by id \
                     limit ?";

#[async_trait]
impl OffsetStore for SqliteStore {
    async fn claim(&self, endpoint: &str, partitions: &[LogPartition]) -> Result<Vec<Position>> {
        let (endpoint, partitions): (Arc<str>, Arc<[LogPartition]>) = (Arc::from(endpoint), Arc::from(partitions));
        let file = self.open_file()?;
        file.write(move |tx| {
            let (endpoint, partitions) = (Arc::clone(&endpoint), Arc::clone(&partitions));
            Box::pin(async move { claim(tx, &endpoint, &partitions).await })
        })
        .await
    }

    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>> {
        let (endpoint, positions): (Arc<str>, Arc<[Position]>) = (Arc::from(endpoint), Arc::from(positions));
        let file = self.open_file()?;
        file.write(move |tx| {
            let (endpoint, positions) = (Arc::clone(&endpoint), Arc::clone(&positions));
            Box::pin(async move { raise(tx, &endpoint, &positions).await })
        })
        .await
    }
}

async fn claim(tx: &mut Tx, endpoint: &Arc<str>, partitions: &[LogPartition]) -> Result<Vec<Position>> {
    let now = tx.now;
    let mut claimed = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let step = Step::with(CLAIM, |args| {
            args.shared(endpoint);
            args.shared(&partition.log);
            args.int(partition.partition.into());
            args.time(now);
        });
        let rows = step.fetch(&mut tx.connection, "claim a position in sqlite").await?;
        claimed.extend(rows.first().map(position).transpose()?);
    }
    Ok(claimed)
}

async fn raise(tx: &mut Tx, endpoint: &Arc<str>, positions: &[Position]) -> Result<Vec<bool>> {
    let now = tx.now;
    let mut raised = Vec::with_capacity(positions.len());
    for Position { partition, handled_below, epoch, fingerprint } in positions {
        let step = Step::with(ADVANCE, |args| {
            args.int(*handled_below);
            args.text(fingerprint);
            args.time(now);
            args.shared(endpoint);
            args.shared(&partition.log);
            args.int(partition.partition.into());
            args.int(*epoch);
        });
        let done = step.run(&mut tx.connection, "raise a position in sqlite").await?;
        raised.push(done.changes > 0);
    }
    Ok(raised)
}

async fn reset(tx: &mut Tx, endpoint: &Arc<str>, reset: &PositionReset) -> Result<u64> {
    let (now, context) = (tx.now, "reset positions in sqlite");
    let rows = Step::with(LIST, |args| args.shared(endpoint)).fetch(&mut tx.connection, context).await?;
    let mut found = rows.iter().map(position).collect::<Result<Vec<_>>>()?;
    found.retain(|position| {
        *position.partition.log == *reset.log && reset.partition.is_none_or(|n| n == position.partition.partition)
    });
    for Position { partition, handled_below, .. } in &found {
        let change = Step::with(RESET, |args| {
            args.int(reset.to);
            args.time(now);
            args.shared(endpoint);
            args.shared(&partition.log);
            args.int(partition.partition.into());
        });
        change.run(&mut tx.connection, context).await?;
        let audit = Step::with(INSERT_AUDIT, |args| {
            args.time(now);
            args.shared(endpoint);
            args.text(&reset.by);
            args.text(POSITION_RESET);
            args.text(&partition.to_string());
            args.text(&handled_below.to_string());
            args.text(&reset.to.min(*handled_below).to_string());
            args.text(&reset.why);
        });
        audit.run(&mut tx.connection, context).await?;
    }
    Ok(found.len() as u64)
}

impl OpenFile {
    pub(super) async fn reset_positions(&self, endpoint: &str, asked: &PositionReset) -> Result<u64> {
        let (endpoint, asked): (Arc<str>, Arc<PositionReset>) = (Arc::from(endpoint), Arc::new(asked.clone()));
        self.write(move |tx| {
            let (endpoint, asked) = (Arc::clone(&endpoint), Arc::clone(&asked));
            Box::pin(async move { reset(tx, &endpoint, &asked).await })
        })
        .await
    }
}

impl SqliteStore {
    pub(super) async fn list_positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        let step = Step::with(LIST, |args| args.text(endpoint));
        self.read_rows(step, "list positions in sqlite").await?.iter().map(position).collect()
    }

    pub(super) async fn list_audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        let step = Step::with(AUDIT, |args| {
            args.text(endpoint);
            args.int(after);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        self.read_rows(step, "list the audit in sqlite").await?.iter().map(entry).collect()
    }
}

fn position(row: &SqliteRow) -> Result<Position> {
    let partition = LogPartition { log: Arc::from(sql::column::<&str>(row, 0)?), partition: sql::column(row, 1)? };
    Ok(Position {
        partition,
        handled_below: sql::column(row, 2)?,
        epoch: sql::column(row, 3)?,
        fingerprint: sql::column(row, 4)?,
    })
}

fn entry(row: &SqliteRow) -> Result<AuditEntry> {
    Ok(AuditEntry {
        id: sql::column(row, 0)?,
        at: Timestamp(sql::column(row, 1)?),
        by: sql::column(row, 2)?,
        action: sql::column(row, 3)?,
        subject: sql::column(row, 4)?,
        before: sql::column(row, 5)?,
        after: sql::column(row, 6)?,
        why: sql::column(row, 7)?,
    })
}
