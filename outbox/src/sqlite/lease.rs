//! Membership and shard ownership, by the database's clock.

use super::{
    sql::{self, Rows, Step},
    store::SqliteStore,
    write_context::Tx,
};
use crate::membership::{Group, Member, Shard};
use async_trait::async_trait;
use sagabus_core::{Lease, LeaseRequest, Leases, NodeId, Result, Timestamp};
use std::{collections::HashMap, sync::Arc};

const READ_NODES: &str =
    "select node,process,wants,unbroken_since,lease_until,gone from node where grp=? order by node";

const READ_SHARDS: &str = "select shard,node,epoch,clean from shard where grp=? order by shard";

const JOIN_GROUP: &str = "insert into node(grp,node,process,wants,joined_at,unbroken_since,lease_until) values (?,?,?,?,?,?,?) \
                    on conflict(grp,node) do update set process=excluded.process,wants=excluded.wants,\
                    unbroken_since=excluded.unbroken_since,lease_until=excluded.lease_until,gone=0";

/// Shards that are written: (group, shard, node, epoch, clean).
static WRITE_SHARDS: Rows = Rows::new(
    "insert or replace into shard(grp,shard,node,epoch,clean) select column1,column2,column3,column4,column5 from (values ",
    "(?,?,?,?,?)",
    ") w where column1 is not null",
);

// it may only have been stopped: when it comes back, it is told that its lease had lapsed
static MARK_GONE: Rows = Rows::new("update node set gone=1 where grp=? and node in (values ", "(?)", ")");

#[async_trait]
impl Leases for SqliteStore {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        let request = request.clone();
        self.open_file()?
            .write(move |tx| {
                let request = request.clone();
                Box::pin(async move { heartbeat(tx, &request).await })
            })
            .await
    }

    async fn leave(&self, group: &str, node: NodeId) -> Result<()> {
        let group: Arc<str> = Arc::from(group);
        self.open_file()?
            .write(move |tx| {
                let group = Arc::clone(&group);
                Box::pin(async move {
                    let context = "leave a group in sqlite";
                    let free = "update shard set node=null,clean=1 where grp=? and node=?";
                    let gone = "delete from node where grp=? and node=?";
                    for statement in [free, gone] {
                        Step::with(statement, |args| {
                            args.shared(&group);
                            args.id(node.0);
                        })
                        .run(&mut tx.connection, context)
                        .await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

async fn heartbeat(tx: &mut Tx, request: &LeaseRequest) -> Result<Lease> {
    let (mut group, processes) = read(tx, request).await?;
    let before = group.clone();
    let shared = Arc::clone(&tx.shared);
    let ended = |node: &NodeId| processes.get(node).is_some_and(|process| shared.process.is_dead(process));
    let (lease, removed) = group.heartbeat(request, ended);
    let own = shared.process.name();
    let is_other = |node: &NodeId| processes.get(node).is_some_and(|process| process != own);
    let mut others = group.members.iter().filter(|(node, _)| **node != request.node && is_other(node));
    if others.any(|(_, member)| group.holds_lease(member)) {
        shared.contended_for(request.ttl);
    }
    if let Some(member) = group.members.get(&request.node) {
        write_member(tx, request, member).await?;
    }
    write_changes(tx, &request.group, &removed, &group.shards_changed_since(&before)).await?;
    Ok(lease)
}

/// The group, and the processes of its members. A member that was removed is left out, unless it is the one that asks:
/// then its lease has lapsed.
async fn read(tx: &mut Tx, request: &LeaseRequest) -> Result<(Group, HashMap<NodeId, String>)> {
    let (name, context) = (request.group.as_str(), "read a group in sqlite");
    let (mut group, mut processes) = (Group::new(tx.now), HashMap::new());
    for row in Step::with(READ_NODES, |args| args.text(name)).fetch(&mut tx.connection, context).await? {
        let (node, gone) = (NodeId(sql::uuid(&row, 0)?), sql::column::<bool>(&row, 5)?);
        if gone && node != request.node {
            continue;
        }
        let lease_until = if gone { i64::MIN } else { sql::column(&row, 4)? };
        let member = Member {
            wants: sql::column(&row, 2)?,
            unbroken_since: Timestamp(sql::column(&row, 3)?),
            lease_until: Timestamp(lease_until),
        };
        group.members.insert(node, member);
        processes.insert(node, sql::column(&row, 1)?);
    }
    for row in Step::with(READ_SHARDS, |args| args.text(name)).fetch(&mut tx.connection, context).await? {
        let owner = sql::column::<Option<&[u8]>>(&row, 1)?.and_then(|id| uuid::Uuid::from_slice(id).ok());
        let shard = Shard { owner: owner.map(NodeId), epoch: sql::column(&row, 2)?, clean: sql::column(&row, 3)? };
        group.add_shard(sql::column(&row, 0)?, shard);
    }
    Ok((group, processes))
}

async fn write_member(tx: &mut Tx, request: &LeaseRequest, member: &Member) -> Result<()> {
    let now = tx.now;
    let step = Step::with(JOIN_GROUP, |args| {
        args.text(&request.group);
        args.id(request.node.0);
        args.text(tx.shared.process.name());
        args.int(i64::from(member.wants));
        args.time(now);
        args.time(member.unbroken_since);
        args.time(member.lease_until);
    });
    step.run(&mut tx.connection, "join a group in sqlite").await?;
    Ok(())
}

async fn write_changes(tx: &mut Tx, name: &str, removed: &[NodeId], shards: &[(u16, Shard)]) -> Result<()> {
    let mut steps = Step::rows(
        &MARK_GONE,
        removed,
        |args| args.text(name),
        |args, node| {
            args.id(node.0);
            Ok(())
        },
    )?;
    steps.extend(Step::rows(
        &WRITE_SHARDS,
        shards,
        |_| {},
        |args, (number, shard)| {
            args.text(name);
            args.int(i64::from(*number));
            args.maybe_blob(shard.owner.as_ref().map(|owner| owner.0.as_bytes().as_slice()));
            args.int(shard.epoch);
            args.int(i64::from(shard.clean));
            Ok(())
        },
    )?);
    sql::run_all(&mut tx.connection, steps, "write shards in sqlite", |_, _| true).await?;
    Ok(())
}
