//! Membership and shard ownership, by the database's clock.

use super::{
    sql::{self, Rows, Step},
    store::SqliteStore,
    write_context::Tx,
};
use async_trait::async_trait;
use sagabus_core::{Lease, LeaseRequest, Leases, NodeId, Result, SHARDS, Timestamp};
use std::sync::Arc;

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

/// A member as stored.
struct Member {
    node: NodeId,
    process: String,
    wants: bool,
    unbroken_since: Timestamp,
    lease_until: Timestamp,
    /// The others have taken it for dead.
    gone: bool,
}

/// A shard as stored; one that has no row yet is free and was never owned.
#[derive(Clone, Copy)]
struct Shard {
    owner: Option<NodeId>,
    epoch: i64,
    /// Whether its last owner gave it up itself.
    clean: bool,
    changed: bool,
}

/// Everything about a group.
struct Group {
    members: Vec<Member>,
    shards: Vec<Shard>,
}

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
                    let what = "leave a group in sqlite";
                    let free = "update shard set node=null,clean=1 where grp=? and node=?";
                    let gone = "delete from node where grp=? and node=?";
                    for statement in [free, gone] {
                        Step::with(statement, |args| {
                            args.shared(&group);
                            args.id(node.0);
                        })
                        .run(&mut tx.connection, what)
                        .await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

async fn heartbeat(tx: &mut Tx, request: &LeaseRequest) -> Result<Lease> {
    let (now, node) = (tx.now, request.node);
    let mut group = read(tx, &request.group).await?;
    let before = group.members.iter().find(|member| member.node == node);
    let lapsed = before.is_some_and(|member| member.gone || member.lease_until < now);
    let unbroken_since = before.filter(|_| !lapsed).map_or(now, |member| member.unbroken_since);
    let steady = !lapsed && before.is_some() && unbroken_since.plus(request.ttl) <= now;
    let me = Member {
        node,
        process: tx.shared.process.name().to_string(),
        wants: request.shards,
        unbroken_since,
        lease_until: now.plus(request.ttl),
        gone: false,
    };
    let dead = group.remove_dead(node, now, steady, |process| tx.shared.process.is_dead(process));
    group.members.retain(|member| member.node != node && !member.gone);
    if group.members.iter().any(|member| member.process != me.process && member.lease_until > now) {
        tx.shared.contended_for(request.ttl);
    }
    write_member(tx, &request.group, &me).await?;
    group.members.push(me);
    group.release(node, &request.release);
    let share = group.share(node, now);
    let inherited = group.take(node, share);
    write(tx, &request.group, &dead, &mut group).await?;
    let shards: Vec<(u16, i64)> = group.owned(node).map(|(number, shard)| (number, shard.epoch)).collect();
    Ok(Lease {
        surplus: shards.iter().skip(share).map(|(number, _)| *number).collect(),
        shards,
        inherited,
        members: group.members.iter().filter(|member| member.lease_until > now).count(),
        lapsed,
    })
}

impl Group {
    /// Takes out the members that are gone, and frees their shards: those whose process is dead, and, if this node's own
    /// lease was unbroken for a whole ttl, those whose lease has lapsed (else a stall of the machine would make everyone
    /// look dead to the first one back).
    fn remove_dead(
        &mut self,
        node: NodeId,
        now: Timestamp,
        steady: bool,
        is_dead: impl Fn(&str) -> bool,
    ) -> Vec<NodeId> {
        let gone = |member: &Member| {
            member.node != node && !member.gone && ((steady && member.lease_until < now) || is_dead(&member.process))
        };
        let dead: Vec<NodeId> = self.members.iter().filter(|member| gone(member)).map(|member| member.node).collect();
        self.members.retain(|member| !dead.contains(&member.node));
        for shard in self.shards.iter_mut().filter(|shard| shard.owner.is_some_and(|owner| dead.contains(&owner))) {
            *shard = Shard { owner: None, clean: false, changed: true, ..*shard };
        }
        dead
    }

    fn release(&mut self, node: NodeId, release: &[u16]) {
        for number in release {
            if let Some(shard) = self.shards.get_mut(usize::from(*number)).filter(|shard| shard.owner == Some(node)) {
                *shard = Shard { owner: None, clean: true, changed: true, ..*shard };
            }
        }
    }

    /// How many shards a node should have: the shares differ by one at most and add up to all.
    fn share(&self, node: NodeId, now: Timestamp) -> usize {
        let mut takers: Vec<NodeId> = self
            .members
            .iter()
            .filter(|member| member.wants && member.lease_until > now)
            .map(|member| member.node)
            .collect();
        takers.sort_unstable();
        let Some(rank) = takers.iter().position(|taker| *taker == node) else { return 0 };
        let all = usize::from(SHARDS);
        all / takers.len() + usize::from(rank < all % takers.len())
    }

    /// Takes free shards up to the share; returns those whose last owner did not give them up itself.
    fn take(&mut self, node: NodeId, share: usize) -> Vec<u16> {
        let mut have = self.owned(node).count();
        let mut inherited = Vec::new();
        for (number, shard) in (0..SHARDS).zip(&mut self.shards) {
            if have >= share {
                break;
            }
            if shard.owner.is_some() {
                continue;
            }
            if !shard.clean {
                inherited.push(number);
            }
            *shard = Shard { owner: Some(node), epoch: shard.epoch + 1, clean: true, changed: true };
            have += 1;
        }
        inherited
    }

    fn owned(&self, node: NodeId) -> impl Iterator<Item = (u16, &Shard)> {
        (0..SHARDS).zip(&self.shards).filter(move |(_, shard)| shard.owner == Some(node))
    }
}

async fn read(tx: &mut Tx, name: &str) -> Result<Group> {
    let what = "read a group in sqlite";
    let rows = Step::with(READ_NODES, |args| args.text(name)).fetch(&mut tx.connection, what).await?;
    let member = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Member {
            node: NodeId(sql::uuid(row, 0)?),
            process: sql::column(row, 1)?,
            wants: sql::column(row, 2)?,
            unbroken_since: Timestamp(sql::column(row, 3)?),
            lease_until: Timestamp(sql::column(row, 4)?),
            gone: sql::column(row, 5)?,
        })
    };
    let members = rows.iter().map(member).collect::<Result<Vec<_>>>()?;
    let rows = Step::with(READ_SHARDS, |args| args.text(name)).fetch(&mut tx.connection, what).await?;
    let mut shards = vec![Shard { owner: None, epoch: 0, clean: true, changed: false }; usize::from(SHARDS)];
    for row in &rows {
        if let Some(shard) = shards.get_mut(sql::position(row, 0)?) {
            let owner = sql::column::<Option<&[u8]>>(row, 1)?.and_then(|id| uuid::Uuid::from_slice(id).ok());
            *shard = Shard {
                owner: owner.map(NodeId),
                epoch: sql::column(row, 2)?,
                clean: sql::column(row, 3)?,
                changed: false,
            };
        }
    }
    Ok(Group { members, shards })
}

async fn write_member(tx: &mut Tx, group: &str, me: &Member) -> Result<()> {
    let now = tx.now;
    let step = Step::with(JOIN_GROUP, |args| {
        args.text(group);
        args.id(me.node.0);
        args.text(&me.process);
        args.int(i64::from(me.wants));
        args.time(now);
        args.time(me.unbroken_since);
        args.time(me.lease_until);
    });
    step.run(&mut tx.connection, "join a group in sqlite").await?;
    Ok(())
}

async fn write(tx: &mut Tx, name: &str, dead: &[NodeId], group: &mut Group) -> Result<()> {
    let mut steps = Step::rows(
        &MARK_GONE,
        dead,
        |args| args.text(name),
        |args, node| {
            args.id(node.0);
            Ok(())
        },
    )?;
    let changed: Vec<(u16, Shard)> =
        (0..SHARDS).zip(&group.shards).filter(|(_, shard)| shard.changed).map(|(n, shard)| (n, *shard)).collect();
    steps.extend(Step::rows(
        &WRITE_SHARDS,
        &changed,
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
