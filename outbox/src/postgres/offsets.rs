//! The progress of endpoints in logs, and operators' changes to it.

use super::{
    open::OpenSchema,
    sql::{self, NOW, Reader, Sql},
    store::PostgresStore,
    text::escape,
};
use async_trait::async_trait;
use sagabus_core::{AuditEntry, LogPartition, OffsetStore, POSITION_RESET, Position, PositionReset, Result};
use sqlx::postgres::PgRow;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

#[async_trait]
impl OffsetStore for PostgresStore {
    async fn claim(&self, endpoint: &str, partitions: &[LogPartition]) -> Result<Vec<Position>> {
        let inner = self.open_inner()?;
        let sql = Sql::new(format!(
            "insert into {}log_position as p (endpoint,log,part,base,epoch,mark,at) select $1,w.log,w.part,0,1,'',{NOW} from \
             unnest($2::text[],$3::int[]) w(log,part) order by w.log,w.part on conflict (endpoint,log,part) do update set \
             epoch=p.epoch+1 returning log,part,base,epoch,mark",
            inner.s
        ))
        .with(endpoint)
        .with(logs(partitions))
        .with(partitions.iter().map(|partition| partition.partition).collect::<Vec<_>>());
        // made again after an unknown outcome, it only takes another epoch
        let rows = inner.write("claim positions", sql).await?;
        let found = rows.iter().map(position).collect::<Result<Vec<_>>>()?;
        let mut found: HashMap<LogPartition, Position> = found.into_iter().map(|p| (p.partition.clone(), p)).collect();
        Ok(partitions.iter().filter_map(|partition| found.remove(partition)).collect())
    }

    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>> {
        let inner = self.open_inner()?;
        let sql = Sql::new(format!(
            "update {}log_position p set mark=case when w.base>=p.base then w.mark else p.mark end,\
             base=greatest(p.base,w.base),at={NOW} from unnest($2::text[],$3::int[],$4::bigint[],$5::bigint[],$6::text[]) \
             w(log,part,base,epoch,mark) where p.endpoint=$1 and p.log=w.log and p.part=w.part and p.epoch=w.epoch \
             returning p.log,p.part",
            inner.s
        ))
        .with(endpoint)
        .with(logs(positions.iter().map(|position| &position.partition)))
        .with(positions.iter().map(|position| position.partition.partition).collect::<Vec<_>>())
        .with(positions.iter().map(|position| position.handled_below).collect::<Vec<_>>())
        .with(positions.iter().map(|position| position.epoch).collect::<Vec<_>>())
        .with(positions.iter().map(|position| escape(&position.fingerprint)).collect::<sql::Texts<'_>>());
        let rows = inner.write("raise positions", sql).await?;
        let advanced = rows.iter().map(|row| log_partition(&mut Reader::new(row))).collect::<Result<HashSet<_>>>()?;
        Ok(positions.iter().map(|position| advanced.contains(&position.partition)).collect())
    }
}

fn logs<'a>(partitions: impl IntoIterator<Item = &'a LogPartition>) -> sql::Texts<'a> {
    partitions.into_iter().map(|partition| escape(&partition.log)).collect()
}

impl OpenSchema {
    pub(super) async fn list_positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        let sql = Sql::new(format!(
            "select log,part,base,epoch,mark from {}log_position where endpoint=$1 order by log,part",
            self.s
        ));
        self.read("list positions", sql.with(endpoint)).await?.iter().map(position).collect()
    }

    pub(super) async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64> {
        let s = &self.s;
        let sql = Sql::new(format!(
            "with o as materialized (select p.log,p.part,p.base from {s}log_position p where p.endpoint=$1 and p.log=$2 and \
             ($3::int is null or p.part=$3) order by p.part for update),u as (update {s}log_position p set \
             base=least(p.base,$4),epoch=p.epoch+1,mark='',at={NOW} from o where p.endpoint=$1 and p.log=o.log and \
             p.part=o.part returning p.log,p.part,o.base as before,p.base as after) insert into \
             {s}operator_audit (at,endpoint,operator,action,subject,before,after,why) select \
             {NOW},$1,$5,$6,u.log||'/'||u.part,u.before::text,u.after::text,$7 from u order by u.part returning id"
        ))
        .with(endpoint)
        .with(escape(&reset.log))
        .with(reset.partition)
        .with(reset.to)
        .with(escape(&reset.by))
        .with(POSITION_RESET)
        .with(escape(&reset.why));
        Ok(self.write("reset positions", sql).await?.len() as u64)
    }

    pub(super) async fn list_audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        let sql = Sql::new(format!(
            "select id,at,operator,action,subject,before,after,why from {}operator_audit where endpoint=$1 and id>$2 order by id \
             limit $3",
            self.s
        ));
        let rows = self.read("list the audit", sql.with(endpoint).with(after).with(sql::limit(limit))).await?;
        rows.iter().map(entry).collect()
    }
}

fn log_partition(row: &mut Reader<'_>) -> Result<LogPartition> {
    Ok(LogPartition { log: Arc::from(row.text()?), partition: row.get()? })
}

fn position(row: &PgRow) -> Result<Position> {
    let mut row = Reader::new(row);
    Ok(Position {
        partition: log_partition(&mut row)?,
        handled_below: row.get()?,
        epoch: row.get()?,
        fingerprint: row.text()?,
    })
}

fn entry(row: &PgRow) -> Result<AuditEntry> {
    let mut row = Reader::new(row);
    Ok(AuditEntry {
        id: row.get()?,
        at: row.time()?,
        by: row.text()?,
        action: row.text()?,
        subject: row.text()?,
        before: row.text()?,
        after: row.text()?,
        why: row.text()?,
    })
}
