//! The baselines behind a broker: their tables, their one statement, and what they do with a batch.

use crate::{
    args::{Spec, Work},
    payload::{Counter, Input, Output},
    postgres::{PLANS, connect, is_postgres},
};
use anyhow::Result;
use sqlx::{Executor as _, PgConnection, Row as _};
use std::collections::HashMap;

const SCHEMA: &str = "
create table inbox(message_id uuid primary key);
create table outbox(message_id uuid primary key, body bytea not null)
    with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
create table saga(key bigint primary key, version bigint not null, state bytea not null) with (fillfactor = 70);
";

/// What one commit does.
#[derive(Default)]
pub(crate) struct Batch {
    /// Of the inputs: the gate.
    pub(crate) ids: Vec<uuid::Uuid>,
    /// Key, version that was loaded, messages folded into it, new state.
    pub(crate) keys: Vec<i64>,
    pub(crate) versions: Vec<i64>,
    pub(crate) counts: Vec<i64>,
    pub(crate) states: Vec<Vec<u8>>,
    pub(crate) outputs: Vec<(uuid::Uuid, Vec<u8>)>,
    /// Outputs of the batch before, which the broker has.
    pub(crate) sent: Vec<uuid::Uuid>,
}

/// A connection that loads and commits.
pub(crate) struct Database(PgConnection);

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let mut connection = connect(url).await?;
        connection.execute(PLANS).await?;
        Ok(Self(connection))
    }

    /// The tables, and sagas that have not counted anything yet.
    pub(crate) async fn create(&mut self, keys: u64) -> Result<()> {
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

    pub(crate) async fn states(&mut self, keys: &[i64]) -> Result<Vec<(i64, i64, Vec<u8>)>> {
        let text = "select key, version, state from saga where key = any($1)";
        Ok(sqlx::query_as(text).bind(keys).fetch_all(&mut self.0).await?)
    }

    /// Commits a batch, or nothing of it: the inbox and the versions are checked by a division.
    pub(crate) async fn commit(&mut self, batch: Batch, outputs: &[(uuid::Uuid, Vec<u8>)]) -> Result<()> {
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
    pub(crate) async fn forget(&mut self, sent: Vec<uuid::Uuid>) -> Result<()> {
        sqlx::query("delete from outbox where message_id = any($1)").bind(sent).execute(&mut self.0).await?;
        Ok(())
    }

    /// What the sagas counted, summed and their versions; what is unsent.
    pub(crate) async fn audit(&mut self) -> Result<[i64; 4]> {
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

/// One connection for each worker; none where nothing is stored.
pub(crate) async fn databases(spec: &Spec) -> Result<Vec<Option<Database>>> {
    let mut all = Vec::new();
    for at in 0..spec.ahead {
        if !is_postgres(&spec.store) {
            all.push(None);
            continue;
        }
        let mut database = Database::open(&spec.store).await?;
        if at == 0 {
            database.create(spec.keys).await?;
        }
        all.push(Some(database));
    }
    Ok(all)
}

/// Loads the states, and runs the handler on each message.
pub(crate) async fn handle(
    database: &mut Option<Database>,
    messages: impl ExactSizeIterator<Item = (uuid::Uuid, Input)>,
    work: Work,
) -> Result<Batch> {
    let (ids, messages): (_, Vec<Input>) = messages.unzip();
    let mut batch = Batch { ids, ..Batch::default() };
    let mut states: HashMap<i64, (i64, i64, Counter)> = HashMap::with_capacity(messages.len());
    if let Some(database) = database.as_mut().filter(|_| work == Work::Saga) {
        let mut keys: Vec<i64> = messages.iter().map(|input| input.key.cast_signed()).collect();
        keys.sort_unstable();
        keys.dedup();
        for (key, version, state) in database.states(&keys).await? {
            states.insert(key, (version, 0, serde_json::from_slice(&state)?));
        }
    }
    for m in messages {
        let output = if work == Work::Queue {
            Output { key: m.key, seq: m.seq, at: m.at, count: 0, note: m.note }
        } else {
            let (_, count, state) = states.entry(m.key.cast_signed()).or_default();
            *count += 1;
            state.handle(&m)
        };
        batch.outputs.push((uuid::Uuid::now_v7(), serde_json::to_vec(&output)?));
    }
    for (key, (version, count, state)) in states {
        batch.keys.push(key);
        batch.versions.push(version);
        batch.counts.push(count);
        batch.states.push(serde_json::to_vec(&state)?);
    }
    Ok(batch)
}

/// Nothing lost, nothing doubled, nothing changed twice: with what the broker has of inputs and outputs.
pub(crate) async fn audit(spec: &Spec, left: i64, (out, distinct): (i64, i64)) -> Result<()> {
    let n = i64::try_from(spec.messages)?;
    anyhow::ensure!(
        left == 0 && out == n && distinct == n,
        "the twin's audit: {n} sent, {left} left, {out} out, {distinct} distinct"
    );
    if spec.work == Work::Saga {
        let [count, total, versions, unsent] = Database::open(&spec.store).await?.audit().await?;
        anyhow::ensure!(
            count == n && versions == n && total == n * (n + 1) / 2 && unsent == 0,
            "the twin's audit: {n} handled, counted {count} (sum {total}), {versions} versions, {unsent} unsent"
        );
    }
    Ok(())
}
