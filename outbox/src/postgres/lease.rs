//! Membership and shard ownership, by the database's clock.
//!
//! A heartbeat reads its group under a lock, decides here, and writes what changed. It is seldom, so its five round trips
//! do not matter; a unit that is fenced locks the shard's row, so a take-over waits for it.

use super::{
    error::failed,
    open::OpenSchema,
    pool::Conn,
    sql::{self, NOW, Reader, Sql, micros},
    store::PostgresStore,
};
use crate::membership::{Group, Member, Shard};
use async_trait::async_trait;
use sagabus_core::{Lease, LeaseRequest, Leases, NodeId, Result, Timestamp};

const WHAT: &str = "keep a lease";

impl OpenSchema {
    /// Begins a transaction that has the group for itself.
    async fn lock_group(&self, conn: &mut Conn, group: &str) -> Result<()> {
        let wrong = |error| failed(WHAT, error);
        sql::script(conn, "begin".into()).await.map_err(wrong)?;
        let name = format!("sagabus {} {group}", self.address.schema.name);
        let lock = Sql::new("select pg_advisory_xact_lock(hashtextextended($1,0))").with(name);
        lock.run(conn).await.map_err(wrong)?;
        Ok(())
    }

    async fn read_group(&self, conn: &mut Conn, name: &str) -> Result<Group> {
        let (s, wrong) = (&self.s, |error| failed(WHAT, error));
        let mut group = Group::new(Timestamp(0));
        let members = Sql::new(format!(
            "select {NOW},n.node,n.wants,n.ttl,n.unbroken_since,n.lease_until from (select 1) one left join {s}node n on \
             n.grp=$1"
        ));
        for row in members.with(name).run(conn).await.map_err(wrong)? {
            let mut row = Reader::new(&row);
            group.now = Timestamp(row.get()?);
            let Some(node) = row.get::<Option<uuid::Uuid>>()? else { continue };
            let (wants, _ttl, since, until) = (row.get()?, row.get::<i64>()?, row.get()?, row.get()?);
            let member = Member { wants, unbroken_since: Timestamp(since), lease_until: Timestamp(until) };
            group.members.insert(NodeId(node), member);
        }
        let shards = Sql::new(format!("select shard,node,epoch from {s}shard where grp=$1")).with(name);
        for row in shards.run(conn).await.map_err(wrong)? {
            let mut row = Reader::new(&row);
            let (number, owner): (u16, Option<uuid::Uuid>) = (row.shard()?, row.get()?);
            group.add_shard(number, Shard { owner: owner.map(NodeId), epoch: row.get()?, clean: true });
        }
        Ok(group)
    }

    async fn heartbeat(&self, conn: &mut Conn, request: &LeaseRequest) -> Result<Lease> {
        let (s, wrong) = (&self.s, |error| failed(WHAT, error));
        self.lock_group(conn, &request.group).await?;
        let mut group = self.read_group(conn, &request.group).await?;
        let before = group.clone();
        let (lease, _) = group.heartbeat(request, |_| false);
        let Some(member) = group.members.get(&request.node) else { return Ok(lease) };
        // the row of a shard that is free and not clean keeps its last owner, which says so
        let changed = group.shards_changed_since(&before).into_iter().filter(|(_, shard)| shard.clean);
        let (numbers, changed): (Vec<u16>, Vec<Shard>) = changed.unzip();
        let write = Sql::new(format!(
            "with m as (insert into {s}node (grp,node,wants,ttl,unbroken_since,lease_until) values ($1,$2,$3,$4,$5,$6) on \
             conflict (grp,node) do update set wants=excluded.wants,ttl=excluded.ttl,\
             unbroken_since=excluded.unbroken_since,lease_until=excluded.lease_until) insert into {s}shard \
             (grp,shard,node,epoch) select $1,w.* from unnest($7::smallint[],$8::uuid[],$9::bigint[]) w on conflict \
             (grp,shard) do update set node=excluded.node,epoch=excluded.epoch"
        ))
        .with(request.group.as_str())
        .with(request.node.0)
        .with(member.wants)
        .with(micros(request.ttl))
        .with(member.unbroken_since.0)
        .with(member.lease_until.0)
        .with(sql::shards(&numbers))
        .with(changed.iter().map(|shard| shard.owner.map(|owner| owner.0)).collect::<Vec<_>>())
        .with(changed.iter().map(|shard| shard.epoch).collect::<Vec<_>>());
        write.run(conn).await.map_err(wrong)?;
        sql::script(conn, "commit".into()).await.map_err(wrong)?;
        Ok(lease)
    }
}

#[async_trait]
impl Leases for PostgresStore {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        let inner = self.open_inner()?;
        let mut conn = inner.work.take().await?;
        // a failure drops the connection, and with it the transaction
        let lease = inner.heartbeat(&mut conn, request).await?;
        conn.release();
        Ok(lease)
    }

    async fn leave(&self, group: &str, node: NodeId) -> Result<()> {
        let (inner, wrong) = (self.open_inner()?, |error| failed("leave a group", error));
        let s = &inner.s;
        let mut conn = inner.work.take().await?;
        inner.lock_group(&mut conn, group).await?;
        let leave = Sql::new(format!(
            "with m as (delete from {s}node where grp=$1 and node=$2) update {s}shard set node=null where grp=$1 and node=$2"
        ));
        leave.with(group).with(node.0).run(&mut conn).await.map_err(wrong)?;
        sql::script(&mut conn, "commit".into()).await.map_err(wrong)?;
        conn.release();
        Ok(())
    }
}
