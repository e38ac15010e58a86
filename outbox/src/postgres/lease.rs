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
use async_trait::async_trait;
use sagabus_core::{Lease, LeaseRequest, Leases, NodeId, Result, SHARDS};
use std::collections::BTreeMap;

const WHAT: &str = "keep a lease";

/// A group as stored.
#[derive(Default)]
struct Group {
    now: i64,
    members: BTreeMap<NodeId, Member>,
    shards: BTreeMap<u16, Shard>,
}

struct Member {
    wants: bool,
    ttl: i64,
    since: i64,
    until: i64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Shard {
    owner: Option<NodeId>,
    epoch: i64,
}

impl Group {
    fn lives(&self, member: &Member) -> bool {
        member.until > self.now
    }

    fn heartbeat(&mut self, request: &LeaseRequest) -> Lease {
        let (node, now, ttl) = (request.node, self.now, micros(request.ttl));
        let before = self.members.get(&node);
        let lapsed = before.is_some_and(|member| !self.lives(member));
        let since = before.filter(|member| self.lives(member)).map_or(now, |member| member.since);
        self.members.insert(node, Member { wants: request.shards, ttl, since, until: now.saturating_add(ttl) });
        for number in &request.release {
            if let Some(shard) = self.shards.get_mut(number).filter(|shard| shard.owner == Some(node)) {
                shard.owner = None;
            }
        }
        let share = self.share(node);
        let inherited = self.take(node, share);
        let owned = self.shards.iter().filter(|(_, shard)| shard.owner == Some(node));
        let shards: Vec<(u16, i64)> = owned.map(|(number, shard)| (*number, shard.epoch)).collect();
        Lease {
            surplus: shards.iter().skip(share).map(|(number, _)| *number).collect(),
            shards,
            inherited,
            members: self.members.values().filter(|member| self.lives(member)).count(),
            lapsed,
        }
    }

    /// How many shards a node should have: the shares differ by one at most and add up to all.
    fn share(&self, node: NodeId) -> usize {
        let takers: Vec<&NodeId> =
            self.members.iter().filter(|(_, m)| m.wants && self.lives(m)).map(|(node, _)| node).collect();
        let Some(rank) = takers.iter().position(|taker| **taker == node) else { return 0 };
        let all = usize::from(SHARDS);
        all / takers.len() + usize::from(rank < all % takers.len())
    }

    /// Takes free shards up to the share; returns those whose owner did not leave cleanly.
    fn take(&mut self, node: NodeId, share: usize) -> Vec<u16> {
        let mut inherited = Vec::new();
        let mut have = self.shards.values().filter(|shard| shard.owner == Some(node)).count();
        for number in 0..SHARDS {
            let owner = self.shards.get(&number).and_then(|shard| shard.owner);
            let free = owner.is_none_or(|owner| owner != node && self.may_inherit(node, owner));
            if have >= share || !free {
                continue;
            }
            let shard = self.shards.entry(number).or_default();
            shard.owner = Some(node);
            shard.epoch += 1;
            have += 1;
            if owner.is_some() {
                inherited.push(number);
            }
        }
        inherited
    }

    /// Whether `node` may take what belongs to `owner`: that one left, or its lease has lapsed and this node's own lease
    /// was unbroken for a whole ttl (else a stall of the database would make everyone look dead to the first one back).
    fn may_inherit(&self, node: NodeId, owner: NodeId) -> bool {
        let Some(member) = self.members.get(&owner) else { return true };
        let steady = |m: &Member| self.lives(m) && m.since.saturating_add(m.ttl) <= self.now;
        !self.lives(member) && self.members.get(&node).is_some_and(steady)
    }
}

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
        let mut group = Group::default();
        let members = Sql::new(format!(
            "select {NOW},n.node,n.wants,n.ttl,n.unbroken_since,n.lease_until from (select 1) one left join {s}node n on \
             n.grp=$1"
        ));
        for row in members.with(name).run(conn).await.map_err(wrong)? {
            let mut row = Reader::new(&row);
            group.now = row.get()?;
            let Some(node) = row.get::<Option<uuid::Uuid>>()? else { continue };
            let (wants, ttl, since, until) = (row.get()?, row.get()?, row.get()?, row.get()?);
            group.members.insert(NodeId(node), Member { wants, ttl, since, until });
        }
        let shards = Sql::new(format!("select shard,node,epoch from {s}shard where grp=$1")).with(name);
        for row in shards.run(conn).await.map_err(wrong)? {
            let mut row = Reader::new(&row);
            let (number, owner): (u16, Option<uuid::Uuid>) = (row.shard()?, row.get()?);
            group.shards.insert(number, Shard { owner: owner.map(NodeId), epoch: row.get()? });
        }
        Ok(group)
    }

    async fn heartbeat(&self, conn: &mut Conn, request: &LeaseRequest) -> Result<Lease> {
        let (s, wrong) = (&self.s, |error| failed(WHAT, error));
        self.lock_group(conn, &request.group).await?;
        let mut group = self.read_group(conn, &request.group).await?;
        let before = group.shards.clone();
        let lease = group.heartbeat(request);
        let Some(member) = group.members.get(&request.node) else { return Ok(lease) };
        let changed: Vec<(u16, Shard)> = group
            .shards
            .iter()
            .filter(|(number, shard)| before.get(number) != Some(shard))
            .map(|(number, shard)| (*number, *shard))
            .collect();
        let numbers: Vec<u16> = changed.iter().map(|(number, _)| *number).collect();
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
        .with(member.ttl)
        .with(member.since)
        .with(member.until)
        .with(sql::shards(&numbers))
        .with(changed.iter().map(|(_, shard)| shard.owner.map(|owner| owner.0)).collect::<Vec<_>>())
        .with(changed.iter().map(|(_, shard)| shard.epoch).collect::<Vec<_>>());
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
