//! PostgreSQL without a framework: a queue table and a saga table, and one statement for a whole batch.

use crate::{
    payload::Input,
    postgres::{PLANS, connect},
};
use anyhow::Result;
use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgRow};

/// Which rows: a queue's number, shifted, so that one index serves reader and gate. Workers have a queue each.
pub(super) const OUT: i64 = 1000;
const BITS: u32 = 45;

pub(super) const SCHEMA: &str = "
create sequence queue_seq;
create table queue(id bigint primary key, message_id uuid not null, body bytea not null)
    with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
create table seen(message_id uuid primary key);
create table saga(key bigint primary key, version bigint not null, state bytea not null) with (fillfactor = 70);
create table business(id bigint generated always as identity primary key, saga bigint not null, amount bigint not null);
";

/// What one commit does.
#[derive(Default)]
pub(super) struct Batch {
    /// Input rows: the gate.
    pub(super) ids: Vec<i64>,
    /// Key, version that was loaded, messages folded into it, new state.
    pub(super) keys: Vec<i64>,
    pub(super) versions: Vec<i64>,
    pub(super) counts: Vec<i64>,
    pub(super) states: Vec<Vec<u8>>,
    /// Id and body of each output.
    pub(super) message_ids: Vec<uuid::Uuid>,
    pub(super) outputs: Vec<Vec<u8>>,
    /// One row of the business table for each message, with a statement for each, as a handler would.
    pub(super) own: Vec<(i64, i64)>,
}

/// A connection that reads, loads and commits.
pub(super) struct Database {
    connection: PgConnection,
}

impl Database {
    pub(super) async fn open(url: &str) -> Result<Self> {
        let mut connection = connect(url).await?;
        connection.execute(PLANS).await?;
        Ok(Self { connection })
    }

    pub(super) async fn script(&mut self, text: &'static str) -> Result<()> {
        self.connection.execute(text).await?;
        Ok(())
    }

    /// Sagas of version 1.
    pub(super) async fn create(&mut self, keys: Vec<i64>, states: Vec<Vec<u8>>) -> Result<()> {
        let text = "insert into saga(key, version, state) select w.key, 1, w.state from unnest($1::bigint[], \
                    $2::bytea[]) w(key, state)";
        sqlx::query(text).bind(keys).bind(states).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Rows of an input queue after a cursor.
    pub(super) async fn page(&mut self, queue: i64, after: i64, limit: usize) -> Result<Vec<(i64, Input)>> {
        let page = "select id, body from queue where id > $1 and id < $2 order by id limit $3";
        let query =
            sqlx::query(page).bind(after.max(queue << BITS)).bind((queue + 1) << BITS).bind(i64::try_from(limit)?);
        let rows = query.fetch_all(&mut self.connection).await?;
        let read = |row: &PgRow| {
            Ok((row.try_get_unchecked(0)?, serde_json::from_slice(row.try_get_unchecked::<&[u8], _>(1)?)?))
        };
        rows.iter().map(read).collect()
    }

    /// Versions and states of the keys that have any.
    pub(super) async fn states<T: serde::de::DeserializeOwned>(&mut self, keys: &[i64]) -> Result<Vec<(i64, i64, T)>> {
        let text = "select key, version, state from saga where key = any($1)";
        let rows = sqlx::query(text).bind(keys).fetch_all(&mut self.connection).await?;
        let read = |row: &PgRow| {
            let state = serde_json::from_slice(row.try_get_unchecked::<&[u8], _>(2)?)?;
            Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?, state))
        };
        rows.iter().map(read).collect()
    }

    /// Adds rows to queues: durable when it returns. An id that was there before refuses all.
    pub(super) async fn enqueue(&mut self, queues: Vec<i64>, bodies: Vec<Vec<u8>>) -> Result<()> {
        let ids: Vec<uuid::Uuid> = bodies.iter().map(|_| uuid::Uuid::now_v7()).collect();
        let text = "with s as (insert into seen select unnest($2::uuid[])) insert into queue(id, message_id, body) select \
                    (w.queue << 45) | nextval('queue_seq'), w.id, w.body from unnest($1::bigint[], $2::uuid[], \
                    $3::bytea[]) w(queue, id, body)";
        sqlx::query(text).bind(queues).bind(ids).bind(bodies).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Commits a batch, or nothing of it: the gate and the versions are checked by a division.
    pub(super) async fn commit(&mut self, work: Batch) -> Result<()> {
        let own = !work.own.is_empty();
        if own {
            self.connection.execute("begin").await?;
        }
        for (saga, amount) in &work.own {
            sqlx::query("insert into business(saga, amount) values ($1, $2)")
                .bind(saga)
                .bind(amount)
                .execute(&mut self.connection)
                .await?;
        }
        // no row in `seen`: the gate stands for the outputs too
        let text = "with q as (delete from queue where id = any($1::bigint[]) returning 1), s as (update saga t set \
                    version = w.version + w.n, state = w.state from unnest($2::bigint[], $3::bigint[], $4::bigint[], \
                    $5::bytea[]) w(key, version, n, state) where t.key = w.key and t.version = w.version returning 1), \
                    o as (insert into queue(id, message_id, body) select ($6::bigint << 45) | nextval('queue_seq'), w.id, \
                    w.body from unnest($7::uuid[], $8::bytea[]) w(id, body)) select 1 / (case when (select count(*) \
                    from q) = $9 and (select count(*) from s) = $10 then 1 else 0 end)";
        let (messages, sagas) = (i64::try_from(work.ids.len())?, i64::try_from(work.keys.len())?);
        sqlx::query(text)
            .bind(work.ids)
            .bind(work.keys)
            .bind(work.versions)
            .bind(work.counts)
            .bind(work.states)
            .bind(OUT)
            .bind(work.message_ids)
            .bind(work.outputs)
            .bind(messages)
            .bind(sagas)
            .execute(&mut self.connection)
            .await?;
        if own {
            self.connection.execute("commit").await?;
        }
        Ok(())
    }

    /// Inputs left, outputs, distinct ones, then what the sagas counted, summed and their versions, then own rows.
    pub(super) async fn audit(&mut self) -> Result<[i64; 7]> {
        let text = "select (select count(*) from queue where id < $1), (select count(*) from queue where id >= $1), \
                    (select count(distinct convert_from(body, 'UTF8')::json->>'seq') from queue where id >= $1), c, t, v, \
                    (select count(*) from business) from (select sum((s->>'count')::bigint)::bigint c, \
                    sum((s->>'total')::bigint)::bigint t, sum(version - 1)::bigint v from (select version, \
                    convert_from(state, 'UTF8')::json s from saga) x) y";
        let row = sqlx::query(text).bind(OUT << BITS).fetch_one(&mut self.connection).await?;
        let mut found = [0; 7];
        for (at, value) in found.iter_mut().enumerate() {
            *value = row.try_get(at)?;
        }
        Ok(found)
    }
}
