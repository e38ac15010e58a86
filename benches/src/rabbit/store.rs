//! The twin's tables and its one statement.

use crate::{
    payload::{Counter, Input},
    postgres::connect,
};
use anyhow::Result;
use sqlx::{Executor as _, PgConnection, Row as _};

const SCHEMA: &str = "
create table inbox(message_id uuid primary key);
create table outbox(message_id uuid primary key, body bytea not null)
    with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
create table saga(key bigint primary key, version bigint not null, state bytea not null) with (fillfactor = 70);
";

/// Plans are made once and probe the indexes, however empty the tables were then.
const SETTINGS: &str = "set plan_cache_mode = force_generic_plan; set seq_page_cost = 1000; set random_page_cost = 1; \
                        set jit = off";

/// What one commit does.
#[derive(Default)]
pub(super) struct Batch {
    /// Of the inputs: the gate.
    pub(super) ids: Vec<uuid::Uuid>,
    /// Key, version that was loaded, messages folded into it, new state.
    pub(super) keys: Vec<i64>,
    pub(super) versions: Vec<i64>,
    pub(super) counts: Vec<i64>,
    pub(super) states: Vec<Vec<u8>>,
    pub(super) outputs: Vec<(uuid::Uuid, Vec<u8>)>,
    /// Outputs of the batch before, which the broker has.
    pub(super) sent: Vec<uuid::Uuid>,
}

/// A connection that loads and commits.
pub(super) struct Database(PgConnection);

impl Database {
    pub(super) async fn open(url: &str) -> Result<Self> {
        let mut connection = connect(url).await?;
        connection.execute(SETTINGS).await?;
        Ok(Self(connection))
    }

    /// The tables, and sagas that have not counted anything yet.
    pub(super) async fn create(&mut self, keys: u64) -> Result<()> {
        self.0.execute(SCHEMA).await?;
        let all: Vec<u64> = (0..keys).collect();
        for chunk in all.chunks(500) {
            let mut states = Vec::with_capacity(chunk.len());
            for key in chunk {
                let mut state = Counter::default();
                // of full size
                state.handle(&Input::new(*key, 0, 0));
                state.count = 0;
                states.push(serde_json::to_vec(&state)?);
            }
            let keys: Vec<i64> = chunk.iter().map(|key| key.cast_signed()).collect();
            let text = "insert into saga(key, version, state) select w.key, 1, w.state from unnest($1::bigint[], \
                        $2::bytea[]) w(key, state)";
            sqlx::query(text).bind(keys).bind(states).execute(&mut self.0).await?;
        }
        self.0.execute("vacuum analyze saga").await?;
        Ok(())
    }

    pub(super) async fn states(&mut self, keys: &[i64]) -> Result<Vec<(i64, i64, Vec<u8>)>> {
        let text = "select key, version, state from saga where key = any($1)";
        Ok(sqlx::query_as(text).bind(keys).fetch_all(&mut self.0).await?)
    }

    /// Commits a batch, or nothing of it: the inbox and the versions are checked by a division.
    pub(super) async fn commit(&mut self, batch: Batch, outputs: &[(uuid::Uuid, Vec<u8>)]) -> Result<()> {
        let text = "with i as (insert into inbox select unnest($1::uuid[]) on conflict do nothing returning 1), s as \
                    (update saga t set version = w.version + w.n, state = w.state from unnest($2::bigint[], $3::bigint[], \
                    $4::bigint[], $5::bytea[]) w(key, version, n, state) where t.key = w.key and t.version = w.version \
                    returning 1), o as (insert into outbox select * from unnest($6::uuid[], $7::bytea[])), d as (delete \
                    from outbox where message_id = any($8::uuid[])) select 1 / (case when (select count(*) from i) = $9 \
                    and (select count(*) from s) = $10 then 1 else 0 end)";
        let (messages, sagas) = (i64::try_from(batch.ids.len())?, i64::try_from(batch.keys.len())?);
        let (ids, bodies): (Vec<uuid::Uuid>, Vec<&[u8]>) = outputs.iter().map(|(id, body)| (*id, &body[..])).unzip();
        sqlx::query(text)
            .bind(batch.ids)
            .bind(batch.keys)
            .bind(batch.versions)
            .bind(batch.counts)
            .bind(batch.states)
            .bind(ids)
            .bind(bodies)
            .bind(batch.sent)
            .bind(messages)
            .bind(sagas)
            .execute(&mut self.0)
            .await?;
        Ok(())
    }

    /// The broker has these.
    pub(super) async fn forget(&mut self, sent: Vec<uuid::Uuid>) -> Result<()> {
        sqlx::query("delete from outbox where message_id = any($1)").bind(sent).execute(&mut self.0).await?;
        Ok(())
    }

    /// What the sagas counted, summed and their versions; what is unsent.
    pub(super) async fn audit(&mut self) -> Result<[i64; 4]> {
        let text = "select c, t, v, (select count(*) from outbox) from (select sum((s->>'count')::bigint)::bigint c, \
                    sum((s->>'total')::bigint)::bigint t, sum(version - 1)::bigint v from (select version, \
                    convert_from(state, 'UTF8')::json s from saga) x) y";
        let row = sqlx::query(text).fetch_one(&mut self.0).await?;
        let mut found = [0; 4];
        for (at, value) in found.iter_mut().enumerate() {
            *value = row.try_get(at)?;
        }
        Ok(found)
    }
}
