//! The outbox: rows that their commit's process did not send, or not yet.

use super::{
    due::message,
    open::OpenSchema,
    sql::{self, NOW, Reader, Sql},
};
use crate::fold::shard_of_row;
use sagabus_core::{Destination, Envelope, OutboxId, OutboxRow, Outgoing, Owner, Result};
use sqlx::postgres::PgRow;
use std::collections::HashMap;

impl OpenSchema {
    /// Owners are found by leaping from one to the next in the index: a live one's backlog may be long.
    pub(crate) async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        let s = &self.s;
        let sql = Sql::new(format!(
            "with recursive owner(node) as ((select node from {s}outbox where endpoint=$1 order by node limit 1) union all \
             select (select o.node from {s}outbox o where o.endpoint=$1 and o.node>w.node order by o.node limit 1) from \
             owner w where w.node is not null),me as (select exists(select 1 from {s}node m where m.grp=$1 and m.node=$2 \
             and m.lease_until>{NOW} and m.unbroken_since+m.ttl<={NOW}) as steady),gone as (select w.node from owner w,me \
             where w.node is not null and w.node<>$2 and not exists(select 1 from {s}node n where n.grp=$1 and \
             n.node=w.node and (n.lease_until>{NOW} or not me.steady))),x as materialized (select o.id from \
             {s}outbox o where o.endpoint=$1 and o.node in (select node from gone) order by o.id+0 limit $3 for update skip \
             locked) update {s}outbox o set node=$2 from x where o.id=x.id returning \
             o.id,o.topic,o.destination,o.headers,o.body"
        ))
        .with(&*owner.endpoint)
        .with(owner.node.0)
        .with(sql::limit(limit));
        let mut rows = outbox_rows(&self.write("take over outbox rows", sql).await?)?;
        rows.sort_by_key(|row| row.id);
        Ok(rows)
    }

    pub(crate) async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        let s = &self.s;
        let sql = Sql::new(format!(
            "select o.id,o.topic,o.destination,o.headers,o.body from {s}outbox o where o.endpoint=$1 and o.node=$2 \
             and o.id+0>$3 and (o.order_key is null or not exists(select 1 from {s}outbox e where e.endpoint=$1 and \
             e.order_key=o.order_key and e.id<o.id and e.node<>$2)) order by o.id+0 limit $4"
        ))
        .with(&*owner.endpoint)
        .with(owner.node.0)
        .with(after.0)
        .with(sql::limit(limit));
        outbox_rows(&self.read("read outbox rows", sql).await?)
    }

    pub(crate) async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        let (s, what) = (&self.s, "bury outbox rows");
        let ids: Vec<i64> = rows.iter().map(|(id, _)| id.0).collect();
        let list = format!("select id,topic,destination,headers,body from {s}outbox where id=any($1)");
        let found = outbox_rows(&self.read(what, Sql::new(list).with(ids)).await?)?;
        let reasons: HashMap<OutboxId, &str> = rows.iter().map(|(id, reason)| (*id, reason.as_str())).collect();
        let shard = |message: &Envelope| i16::try_from(shard_of_row(None, message)).unwrap_or(0);
        let detail =
            |row: &OutboxRow| serde_json::to_string(&[format!("to {:?}", row.outgoing.to)]).unwrap_or_default();
        // a row that was sent or dead-lettered meanwhile is not there any more
        let sql = Sql::new(format!(
            "with d as (delete from {s}outbox where id=any($1::bigint[]) returning id,headers,body) insert into \
             {s}dead_letter (endpoint,handler,shard,at,attempts,reason,detail,headers,body) select \
             $2,'',w.shard,{NOW},0,w.reason,w.detail,d.headers,d.body from \
             unnest($1::bigint[],$3::smallint[],$4::text[],$5::text[]) w(id,shard,reason,detail) join d on d.id=w.id"
        ))
        .with(found.iter().map(|row| row.id.0).collect::<Vec<_>>())
        .with(&*owner.endpoint)
        .with(found.iter().map(|row| shard(&row.outgoing.message)).collect::<Vec<_>>())
        .with(
            found
                .iter()
                .map(|row| super::text::escape(reasons.get(&row.id).copied().unwrap_or_default()))
                .collect::<sql::Texts<'_>>(),
        )
        .with(found.iter().map(detail).collect::<Vec<_>>());
        self.write(what, sql).await?;
        Ok(())
    }
}

fn outbox_rows(rows: &[PgRow]) -> Result<Vec<OutboxRow>> {
    let outbox_row = |row| {
        let mut row = Reader::new(row);
        let (id, topic, name) = (OutboxId(row.get()?), row.get()?, row.text()?);
        let to = if topic { Destination::Topic(name) } else { Destination::Queue(name) };
        Ok(OutboxRow { id, outgoing: Outgoing { to, message: message(&mut row)? } })
    };
    rows.iter().map(outbox_row).collect()
}
