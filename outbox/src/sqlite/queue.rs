//! Queues as tables.

use super::{
    commit::Enqueue,
    error::is_too_big,
    packed_rows::PackedRows,
    sql::{self, Args, Rows, Step},
    store::SqliteStore,
};
use crate::wakeups::WakeKey;
use async_trait::async_trait;
use sagabus_core::{
    DatabaseId, Leases, MessageId, Outgoing, QueueRow, Queues, Result, SHARDS, SendOutcome, check_name,
};
use std::{sync::Arc, time::Duration};

macro_rules! rows {
    ($shards:literal) => {
        concat!(
            "select id,shard,message_id,headers,body from queue where queue=? and id>?",
            $shards,
            " order by id limit ?"
        )
    };
}

macro_rules! packed {
    ($shards:literal) => {
        concat!(
            "select cast(group_concat(id||' '||shard||' '||octet_length(message_id)||' '||octet_length(headers)||' '||\
             octet_length(body)||' '||message_id||headers||body,'') as blob) from (",
            rows!($shards),
            ")"
        )
    };
}

/// All shards: the usual case, which needs no filter.
pub(crate) const READ_ALL: &str = packed!("");

/// Some shards, as a bit mask: the order stays that of the ids, whatever the number of shards.
pub(crate) const READ: &str = packed!(" and (1<<shard)&?");

/// The same row by row, for rows that are too large together.
const READ_EACH: &str = rows!(" and (1<<shard)&?");

// the plus keeps the planner on the row ids
static DELETE: Rows = Rows::new("delete from queue where +queue=? and id in (values ", "(?)", ")");

#[async_trait]
impl Queues for SqliteStore {
    fn database(&self) -> &DatabaseId {
        &self.file.id
    }

    async fn migrate(&self) -> Result<()> {
        self.open_file()?.migrate().await
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        let name: Arc<str> = Arc::from(queue);
        self.open_file()?
            .write(move |tx| {
                let name = Arc::clone(&name);
                Box::pin(async move {
                    tx.announcements.declared_queue = true;
                    let insert = "insert or ignore into queue_name(name) values (?)";
                    Step::with(insert, |args| args.shared(&name)).run(&mut tx.connection, "declare a queue").await?;
                    Ok(())
                })
            })
            .await
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        let (queue, topics): (Arc<str>, Arc<[String]>) = (Arc::from(queue), Arc::from(topics));
        self.open_file()?
            .write(move |tx| {
                let (queue, topics) = (Arc::clone(&queue), Arc::clone(&topics));
                Box::pin(async move {
                    static ADD: Rows = Rows::new(
                        "insert or ignore into subscription(topic,queue) select column1,column2 from (values ",
                        "(?,?)",
                        ") w where column1 is not null",
                    );
                    tx.announcements.declared_queue = true;
                    let context = "subscribe a queue";
                    let mut steps = vec![
                        Step::with("insert or ignore into queue_name(name) values (?)", |args| args.shared(&queue)),
                        Step::with("delete from subscription where queue=?", |args| args.shared(&queue)),
                    ];
                    steps.extend(Step::rows(
                        &ADD,
                        &topics,
                        |_| {},
                        |args, topic| {
                            args.text(topic);
                            args.shared(&queue);
                            Ok(())
                        },
                    )?);
                    sql::run_all(&mut tx.connection, steps, context, |_, _| true).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let answer = match self.open_file() {
            Ok(file) => file.submit(Enqueue(Arc::from(batch))).await,
            Err(error) => Err(error),
        };
        let all = |outcome: SendOutcome| vec![outcome; batch.len()];
        match answer {
            Ok(unknown) => batch
                .iter()
                .enumerate()
                .map(|(key, outgoing)| match unknown.contains(&key) {
                    true => SendOutcome::Unroutable(format!("there is no queue {}", outgoing.to.name())),
                    false => SendOutcome::Done,
                })
                .collect(),
            Err(error) if error.is_unknown() => all(SendOutcome::Unknown(error)),
            Err(error) => all(SendOutcome::Retry(error)),
        }
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        let key = WakeKey::Queue(Arc::from(queue));
        let file = self.open_file()?;
        file.shared.wakeups.reading(&key, &self.last_seen);
        let (shard_mask, all) = shard_mask(shards);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = |text, all: bool| {
            Step::with(text, |args: &mut Args| {
                args.text(queue);
                args.int(after);
                if !all {
                    args.int(shard_mask);
                }
                args.int(most);
            })
        };
        let context = "read a queue in sqlite";
        let step = statement(if all { READ_ALL } else { READ }, all);
        match file.read.run(&file.shared, async |connection| step.fetch(connection, context).await).await {
            Ok(rows) => unpack(PackedRows::new(&rows)?),
            Err(error) if is_too_big(&error) => {
                let step = statement(READ_EACH, false);
                let rows =
                    file.read.run(&file.shared, async |connection| step.fetch(connection, context).await).await?;
                rows.iter().map(queue_row).collect()
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (queue, ids): (Arc<str>, Arc<[i64]>) = (Arc::from(queue), Arc::from(ids));
        self.open_file()?
            .write(move |tx| {
                let (queue, ids) = (Arc::clone(&queue), Arc::clone(&ids));
                Box::pin(async move {
                    let steps = Step::rows(
                        &DELETE,
                        &ids,
                        |args| args.shared(&queue),
                        |args, id| {
                            args.int(*id);
                            Ok(())
                        },
                    )?;
                    sql::run_all(&mut tx.connection, steps, "delete from a queue", |_, _| true).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        let key = WakeKey::Queue(Arc::from(queue));
        self.file.shared.wakeups.wait(&key, &self.last_seen, at_most, self.file.shared.runtime()).await;
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        let file = self.open_file()?;
        let step = Step::with("select count(*) from queue where queue=?", |args| args.text(queue));
        let rows =
            file.read.run(&file.shared, async |connection| step.fetch(connection, "count a queue").await).await?;
        rows.first().map_or(Ok(0), |row| Ok(u64::try_from(sql::column::<i64>(row, 0)?).unwrap_or(0)))
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }
}

fn unpack(mut packed: PackedRows) -> Result<Vec<QueueRow>> {
    let mut rows = Vec::new();
    while !packed.is_empty() {
        let (id, shard) = (packed.number()?, packed.number()?);
        let (message, headers, body) = (packed.number()?, packed.number()?, packed.number()?);
        rows.push(QueueRow {
            id,
            shard: u16::try_from(shard).unwrap_or(0),
            message_id: message_id(&packed.bytes(message)?),
            headers: packed.bytes(headers)?,
            body: packed.bytes(body)?,
        });
    }
    // as read, and as SQLite aggregates them; but it does not promise that
    rows.sort_unstable_by_key(|row| row.id);
    Ok(rows)
}

fn queue_row(row: &sqlx::sqlite::SqliteRow) -> Result<QueueRow> {
    Ok(QueueRow {
        id: sql::column(row, 0)?,
        shard: u16::try_from(sql::column::<i64>(row, 1)?).unwrap_or(0),
        message_id: message_id(sql::column(row, 2)?),
        headers: sql::bytes(row, 3)?,
        body: sql::bytes(row, 4)?,
    })
}

/// Ours are UUIDs; a foreign writer may have put anything there.
fn message_id(bytes: &[u8]) -> MessageId {
    match uuid::Uuid::from_slice(bytes) {
        Ok(id) => MessageId(id),
        Err(_) => MessageId::from_foreign(&String::from_utf8_lossy(bytes)),
    }
}

/// Shards as bits, and whether these are all.
pub(crate) fn shard_mask(shards: &[u16]) -> (i64, bool) {
    let known = shards.iter().filter(|shard| **shard < SHARDS);
    let shard_mask = known.fold(0i64, |shard_mask, shard| shard_mask | 1 << shard);
    (shard_mask, shard_mask == (1 << SHARDS) - 1)
}
