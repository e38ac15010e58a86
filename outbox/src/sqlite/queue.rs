//! Queues as tables.

use super::{
    apply::Enqueue,
    bells::Place,
    sql::{self, Args, Rows, Step},
    store::SqliteStore,
};
use async_trait::async_trait;
use sagabus_core::{
    DatabaseId, Leases, MessageId, Outgoing, QueueRow, Queues, Result, SHARDS, SendOutcome, check_name,
};
use std::{sync::Arc, time::Duration};

/// All shards: the usual case, which needs no filter.
pub(crate) const READ_ALL: &str = "select id,shard,message_id,headers,body from queue where queue=? and id>? order by id limit ?";

/// Some shards, as a bit mask: the order stays that of the ids, whatever the number of shards.
pub(crate) const READ: &str = "select id,shard,message_id,headers,body from queue where queue=? and id>? and \
                               (1<<shard)&? order by id limit ?";

// the plus keeps the planner on the row ids
static DELETE: Rows = Rows::new("delete from queue where +queue=? and id in (values ", "(?)", ")");

#[async_trait]
impl Queues for SqliteStore {
    fn database(&self) -> &DatabaseId {
        &self.inner.id
    }

    async fn migrate(&self) -> Result<()> {
        self.open_inner()?.migrate().await
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        let name: Arc<str> = Arc::from(queue);
        self.open_inner()?
            .write(move |tx| {
                let name = Arc::clone(&name);
                Box::pin(async move {
                    tx.notes.declared = true;
                    let insert = "insert or ignore into queue_name(name) values (?)";
                    Step::with(insert, |args| args.shared(&name)).run(&mut tx.connection, "declare a queue").await?;
                    Ok(())
                })
            })
            .await
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        let (queue, topics): (Arc<str>, Arc<[String]>) = (Arc::from(queue), Arc::from(topics));
        self.open_inner()?
            .write(move |tx| {
                let (queue, topics) = (Arc::clone(&queue), Arc::clone(&topics));
                Box::pin(async move {
                    static ADD: Rows = Rows::new(
                        "insert or ignore into subscription(topic,queue) select column1,column2 from (values ",
                        "(?,?)",
                        ") w where column1 is not null",
                    );
                    tx.notes.declared = true;
                    let what = "subscribe a queue";
                    let mut steps = vec![
                        Step::with("insert or ignore into queue_name(name) values (?)", |args| args.shared(&queue)),
                        Step::with("delete from subscription where queue=?", |args| args.shared(&queue)),
                    ];
                    steps.extend(Step::rows(&ADD, &topics, |_| {}, |args, topic| {
                        args.text(topic);
                        args.shared(&queue);
                        Ok(())
                    })?);
                    sql::run_all(&mut tx.connection, steps, what, |_, _| true).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let answer = match self.open_inner() {
            Ok(inner) => inner.submit(Enqueue(Arc::from(batch))).await,
            Err(error) => Err(error),
        };
        let all = |outcome: SendOutcome| vec![outcome; batch.len()];
        match answer {
            Ok(unknown) => batch
                .iter()
                .enumerate()
                .map(|(place, outgoing)| match unknown.contains(&place) {
                    true => SendOutcome::Unroutable(format!("there is no queue {}", outgoing.to.name())),
                    false => SendOutcome::Done,
                })
                .collect(),
            Err(error) if error.is_unknown() => all(SendOutcome::Unknown(error)),
            Err(error) => all(SendOutcome::Retry(error)),
        }
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        let place = Place::Queue(Arc::from(queue));
        let inner = self.open_inner()?;
        inner.shared.bells.reading(&place, &self.seen);
        let (mask, all) = mask(shards);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let bind = |args: &mut Args| {
            args.text(queue);
            args.int(after);
            if !all {
                args.int(mask);
            }
            args.int(most);
        };
        let step = Step::with(if all { READ_ALL } else { READ }, bind);
        let rows = inner
            .read
            .run(&inner.shared, async |connection| step.fetch(connection, "read a queue in sqlite").await)
            .await?;
        let row = |row: &sqlx::sqlite::SqliteRow| {
            Ok(QueueRow {
                id: sql::column(row, 0)?,
                shard: u16::try_from(sql::column::<i64>(row, 1)?).unwrap_or(0),
                message_id: MessageId(sql::uuid(row, 2)?),
                headers: sql::bytes(row, 3)?,
                body: sql::bytes(row, 4)?,
            })
        };
        rows.iter().map(row).collect()
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (queue, ids): (Arc<str>, Arc<[i64]>) = (Arc::from(queue), Arc::from(ids));
        self.open_inner()?
            .write(move |tx| {
                let (queue, ids) = (Arc::clone(&queue), Arc::clone(&ids));
                Box::pin(async move {
                    let steps = Step::rows(&DELETE, &ids, |args| args.shared(&queue), |args, id| {
                        args.int(*id);
                        Ok(())
                    })?;
                    sql::run_all(&mut tx.connection, steps, "delete from a queue", |_, _| true).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        let place = Place::Queue(Arc::from(queue));
        self.inner.shared.bells.wait(&place, &self.seen, at_most, self.inner.shared.runtime()).await;
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        let inner = self.open_inner()?;
        let step = Step::with("select count(*) from queue where queue=?", |args| args.text(queue));
        let rows =
            inner.read.run(&inner.shared, async |connection| step.fetch(connection, "count a queue").await).await?;
        rows.first().map_or(Ok(0), |row| Ok(u64::try_from(sql::column::<i64>(row, 0)?).unwrap_or(0)))
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone())
    }
}

/// Shards as bits, and whether these are all.
pub(crate) fn mask(shards: &[u16]) -> (i64, bool) {
    let known = shards.iter().filter(|shard| **shard < SHARDS);
    let mask = known.fold(0i64, |mask, shard| mask | 1 << shard);
    (mask, mask == (1 << SHARDS) - 1)
}
