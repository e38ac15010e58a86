//! Outbox rows: their owners, and the rows whose owner has ended.

use super::{
    commit::{DELETE_SENT, dead_letter_rows},
    open::OpenFile,
    rows::envelope_or_report,
    sql::{self, Rows, Step},
    write_context::Tx,
};
use sagabus_core::{Destination, OutboxId, OutboxRow, Outgoing, Owner, Result};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::{collections::HashMap, sync::Arc};

/// Nodes that own rows and are not in the group: the heartbeats of the others mark a node as gone when its lease has
/// lapsed by the rules, or its process is dead. It jumps from node to node, however many rows each has.
const LAPSED_OWNERS: &str = "with recursive owner(node) as (select min(o.node) from outbox o where o.endpoint=?1 union all select (select \
     min(o.node) from outbox o where o.endpoint=?1 and o.node>owner.node) from owner where owner.node is not null) select \
     w.node from owner w where w.node is not null and w.node<>?2 and not exists(select 1 from node n where n.grp=?1 and \
     n.node=w.node and not n.gone)";

const ORPHANS: &str = "select o.id,o.topic,o.destination,o.headers,o.body from outbox o where o.endpoint=? and \
                       o.node=? order by o.id limit ?";

/// Rows behind an earlier one of their key that another node has not sent yet are not shown.
const OWN_ROWS: &str = "select o.id,o.topic,o.destination,o.headers,o.body from outbox o where o.endpoint=? and o.node=? and \
     o.id>? and not exists(select 1 from outbox e where e.endpoint=o.endpoint and e.order_key=o.order_key and \
     e.order_key is not null and e.id<o.id and e.node<>o.node) order by o.id limit ?";

static TAKE_OVER: Rows = Rows::new("update outbox set node=? where id in (values ", "(?)", ")");

static READ_ROWS: Rows =
    Rows::new("select id,topic,destination,headers,body from outbox where +endpoint=? and id in (values ", "(?)", ")");

impl OpenFile {
    pub(crate) async fn outbox_own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Result<Vec<OutboxRow>> {
        let step = Step::with(OWN_ROWS, |args| {
            args.shared(&owner.endpoint);
            args.id(owner.node.0);
            args.int(after.0);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        let rows = self
            .read
            .run(&self.shared, async |connection| step.fetch(connection, "read the outbox in sqlite").await)
            .await?;
        Ok(rows.iter().map(outbox_row).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    pub(crate) async fn outbox_orphans(&self, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        let lapsed_owners = async |connection: &mut SqliteConnection| lapsed_owners(connection, owner).await;
        // nearly always there are none, and then the write lock is not needed
        if self.read.run(&self.shared, lapsed_owners).await?.is_empty() {
            return Ok(Vec::new());
        }
        let owner = owner.clone();
        self.write(move |tx| {
            let owner = owner.clone();
            Box::pin(async move { take_orphans(tx, &owner, limit).await })
        })
        .await
    }

    pub(crate) async fn outbox_delete(&self, sent: &[OutboxId]) -> Result<()> {
        if sent.is_empty() {
            return Ok(());
        }
        let sent: Arc<[OutboxId]> = Arc::from(sent);
        self.write(move |tx| {
            let sent = Arc::clone(&sent);
            Box::pin(async move {
                tx.announcements.deleted_sent = true;
                delete(tx, &sent).await
            })
        })
        .await
    }

    pub(crate) async fn outbox_dead_letter(&self, owner: &Owner, rows: &[(OutboxId, String)]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (owner, reasons): (Owner, Arc<[(OutboxId, String)]>) = (owner.clone(), Arc::from(rows));
        self.write(move |tx| {
            let (owner, reasons) = (owner.clone(), Arc::clone(&reasons));
            Box::pin(async move { dead_letter(tx, &owner, &reasons).await })
        })
        .await
    }
}

async fn delete(tx: &mut Tx, ids: &[OutboxId]) -> Result<()> {
    let steps = Step::rows(
        &DELETE_SENT,
        ids,
        |_| {},
        |args, id| {
            args.int(id.0);
            Ok(())
        },
    )?;
    sql::run_all(&mut tx.connection, steps, "delete from the outbox in sqlite", |_, _| true).await?;
    Ok(())
}

async fn lapsed_owners(connection: &mut SqliteConnection, owner: &Owner) -> Result<Vec<uuid::Uuid>> {
    let step = Step::with(LAPSED_OWNERS, |args| {
        args.shared(&owner.endpoint);
        args.id(owner.node.0);
    });
    let rows = step.fetch(connection, "look for orphans in sqlite").await?;
    rows.iter().map(|row| sql::uuid(row, 0)).collect()
}

async fn take_orphans(tx: &mut Tx, owner: &Owner, limit: usize) -> Result<Vec<OutboxRow>> {
    let mut found = Vec::new();
    for node in lapsed_owners(&mut tx.connection, owner).await? {
        let step = Step::with(ORPHANS, |args| {
            args.shared(&owner.endpoint);
            args.id(node);
            args.int(i64::try_from(limit).unwrap_or(i64::MAX));
        });
        for row in step.fetch(&mut tx.connection, "look for orphans in sqlite").await? {
            found.extend(outbox_row(&row)?);
        }
    }
    found.sort_unstable_by_key(|row| row.id);
    found.truncate(limit);
    let steps = Step::rows(
        &TAKE_OVER,
        &found,
        |args| args.id(owner.node.0),
        |args, row| {
            args.int(row.id.0);
            Ok(())
        },
    )?;
    sql::run_all(&mut tx.connection, steps, "take over outbox rows in sqlite", |_, _| true).await?;
    Ok(found)
}

async fn dead_letter(tx: &mut Tx, owner: &Owner, reasons: &[(OutboxId, String)]) -> Result<()> {
    let steps = Step::rows(
        &READ_ROWS,
        reasons,
        |args| args.shared(&owner.endpoint),
        |args, (id, _)| {
            args.int(id.0);
            Ok(())
        },
    )?;
    let mut lost = Vec::new();
    let texts: HashMap<OutboxId, &str> = reasons.iter().map(|(id, reason)| (*id, reason.as_str())).collect();
    let mut ids = Vec::new();
    for step in steps {
        for row in step.fetch(&mut tx.connection, "read the outbox in sqlite").await? {
            let Some(row) = outbox_row(&row)? else { continue };
            ids.push(row.id);
            lost.push((row.outgoing, texts.get(&row.id).copied().unwrap_or_default()));
        }
    }
    let steps = dead_letter_rows(&mut tx.context(), owner, &lost)?;
    sql::run_all(&mut tx.connection, steps, "bury outbox rows in sqlite", |_, _| true).await?;
    delete(tx, &ids).await
}

fn outbox_row(row: &SqliteRow) -> Result<Option<OutboxRow>> {
    let id: i64 = sql::column(row, 0)?;
    let Some(message) = envelope_or_report(row, 3, "outbox", id) else { return Ok(None) };
    let name: String = sql::column(row, 2)?;
    let to = if sql::column::<i64>(row, 1)? == 1 { Destination::Topic(name) } else { Destination::Queue(name) };
    Ok(Some(OutboxRow { id: OutboxId(id), outgoing: Outgoing { to, message } }))
}
