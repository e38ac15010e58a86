//! Queues as tables.

use super::{
    commit::{QUEUE_BITS, Queued, wake_key_of},
    queue_numbers::ABSENT_QUEUE,
    sql::{self, Reader, Sql, Texts},
    store::PostgresStore,
    text::escape,
};
use crate::wakeups::WakeKey;
use async_trait::async_trait;
use sagabus_core::{
    DatabaseId, Destination, Leases, Outgoing, QueueRow, Queues, Result, SHARDS, SendOutcome, check_name,
};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

impl PostgresStore {
    async fn number(&self, queue: &str) -> Result<Option<i32>> {
        let known =
            |store: &Self| store.inner.queues.read().unwrap_or_else(PoisonError::into_inner).get(queue).copied();
        if let Some(number) = known(self).filter(|number| *number != ABSENT_QUEUE) {
            return Ok(Some(number));
        }
        let sql = Sql::new(format!("select number from {}queue_name where name=$1", self.inner.s)).with(escape(queue));
        let rows = self.inner.read("look up a queue", sql).await?;
        let number: Option<i32> = rows.first().map(|row| Reader::new(row).get()).transpose()?;
        if let Some(number) = number {
            self.inner.queues.write().unwrap_or_else(PoisonError::into_inner).insert(queue.into(), number);
        }
        Ok(number)
    }

    async fn add(&self, batch: &[Outgoing]) -> Result<Vec<SendOutcome>> {
        let inner = self.open_inner()?;
        loop {
            inner.resolve(batch.iter()).await?;
            // another thread may have it looked up again
            let Some((outcomes, rows)) = self.route(batch) else { continue };
            if !rows.is_empty() && !inner.enqueue(&rows).await? {
                continue;
            }
            let woken: HashSet<WakeKey> = rows.iter().map(|row| wake_key_of(row.outgoing)).collect();
            inner.announce(&woken);
            return Ok(outcomes);
        }
    }

    /// What becomes of each message if all goes well, and the rows that it takes. None if a queue's number was forgotten.
    fn route<'b>(&self, batch: &'b [Outgoing]) -> Option<(Vec<SendOutcome>, Vec<Queued<'b>>)> {
        let known = self.inner.queues.read().unwrap_or_else(PoisonError::into_inner);
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rows: Vec<Queued<'_>> = Vec::with_capacity(batch.len());
        for outgoing in batch {
            let number = match &outgoing.to {
                Destination::Topic(_) => Some(None),
                Destination::Queue(name) => match *known.get(name.as_str())? {
                    ABSENT_QUEUE => None,
                    number => Some(Some(number)),
                },
            };
            match number {
                Some(number) => {
                    rows.push(Queued { outgoing, number, fresh_id: false });
                    outcomes.push(SendOutcome::Done);
                }
                None => {
                    let text = format!("there is no queue {}", outgoing.to.name());
                    outcomes.push(SendOutcome::Unroutable(text));
                }
            }
        }
        Some((outcomes, rows))
    }
}

#[async_trait]
impl Queues for PostgresStore {
    fn database(&self) -> &DatabaseId {
        &self.inner.id
    }

    async fn migrate(&self) -> Result<()> {
        self.open_inner()?.migrate().await
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        check_name("queue", queue)?;
        self.open_inner()?;
        if self.number(queue).await?.is_some() {
            return Ok(());
        }
        // looked for first: a conflict would use up a number
        let text = format!("insert into {}queue_name (name) values ($1) on conflict do nothing", self.inner.s);
        self.inner.write("declare a queue", Sql::new(text).with(escape(queue))).await?;
        self.number(queue).await?;
        Ok(())
    }

    async fn subscribe(&self, queue: &str, topics: &[String]) -> Result<()> {
        self.declare(queue).await?;
        let (s, number) = (&self.inner.s, self.number(queue).await?);
        let sql = Sql::new(format!(
            "with old as (delete from {s}subscription where queue=$1 and topic<>all($2::text[])) insert into \
             {s}subscription (topic,queue) select distinct topic,$1 from unnest($2::text[]) w(topic) on conflict do nothing"
        ))
        .with(number)
        .with(topics.iter().map(|topic| escape(topic)).collect::<Texts<'_>>());
        self.inner.write("subscribe a queue", sql).await?;
        Ok(())
    }

    async fn remove(&self, queue: &str) -> Result<()> {
        let (s, inner) = (&self.inner.s, self.open_inner()?);
        inner.queues.write().unwrap_or_else(PoisonError::into_inner).remove(queue);
        let Some(number) = self.number(queue).await? else { return Ok(()) };
        let sql = Sql::new(format!(
            "with name as (delete from {s}queue_name where number=$1),topics as (delete from {s}subscription where \
             queue=$1) delete from {s}queue where id>=$2 and id<$3"
        ))
        .with(number)
        .with(i64::from(number) << QUEUE_BITS)
        .with((i64::from(number) + 1) << QUEUE_BITS);
        inner.write("remove a queue", sql).await?;
        inner.queues.write().unwrap_or_else(PoisonError::into_inner).remove(queue);
        Ok(())
    }

    async fn enqueue(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        match self.add(batch).await {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_unknown() => vec![SendOutcome::Unknown(error); batch.len()],
            Err(error) => vec![SendOutcome::Retry(error); batch.len()],
        }
    }

    async fn read(&self, queue: &str, shards: &[u16], after: i64, limit: usize) -> Result<Vec<QueueRow>> {
        self.open_inner()?;
        self.inner.wakeups.reading(&WakeKey::Queue(queue.into()), &self.last_seen);
        let Some(number) = self.number(queue).await? else { return Ok(Vec::new()) };
        let first = i64::from(number) << QUEUE_BITS;
        let end = (i64::from(number) + 1) << QUEUE_BITS;
        let mut sql = Sql::default().with(after.max(first)).with(end).with(sql::limit(limit));
        let mut filter = String::new();
        if shards.iter().collect::<HashSet<_>>().len() < usize::from(SHARDS) {
            let shards = sql.bind(sql::shards(shards));
            filter = format!(" and shard=any({shards}::smallint[])");
        }
        sql.text = format!(
            "select id,shard,message_id,headers,body from {}queue where id>$1 and id<$2{filter} order by id limit $3",
            self.inner.s
        );
        let queue_row = |row| {
            let mut row = Reader::new(row);
            Ok(QueueRow {
                id: row.get()?,
                shard: row.shard()?,
                message_id: row.message()?,
                headers: row.get::<String>()?.into(),
                body: row.bytes()?,
            })
        };
        self.inner.read("read a queue", sql).await?.iter().map(queue_row).collect()
    }

    async fn delete(&self, queue: &str, ids: &[i64]) -> Result<()> {
        self.open_inner()?;
        let Some(number) = self.number(queue).await? else { return Ok(()) };
        let ids: Vec<i64> = ids.iter().copied().filter(|id| id >> QUEUE_BITS == i64::from(number)).collect();
        let sql = Sql::new(format!("delete from {}queue where id=any($1)", self.inner.s)).with(ids);
        self.inner.write("settle messages of a queue", sql).await?;
        Ok(())
    }

    async fn wait(&self, queue: &str, at_most: Duration) {
        if self.open_inner().is_ok() {
            self.inner.wait(&WakeKey::Queue(queue.into()), &self.last_seen, at_most).await;
        }
    }

    async fn depth(&self, queue: &str) -> Result<u64> {
        self.open_inner()?;
        let Some(number) = self.number(queue).await? else { return Ok(0) };
        let sql = Sql::new(format!("select count(*) from {}queue where id>=$1 and id<$2", self.inner.s))
            .with(i64::from(number) << QUEUE_BITS)
            .with((i64::from(number) + 1) << QUEUE_BITS);
        let rows = self.inner.read("count a queue's messages", sql).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| Reader::new(row).get())?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.clone_handle())
    }
}
