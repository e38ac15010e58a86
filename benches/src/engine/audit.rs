//! Looks into the databases with plain SQL, as an outsider would: nothing lost, nothing doubled.

use super::{
    audit_postgres,
    fixture::{NAME, SINK},
};
use crate::{
    args::{Spec, Work},
    broker::{self, is_broker},
    files::file_of,
    postgres::{self, is_postgres},
};
use anyhow::Result;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// What lies there.
#[derive(Default)]
pub(super) struct Found {
    /// Inputs.
    pub(super) left: i64,
    /// Outputs, and how many different ones.
    pub(super) out: i64,
    pub(super) distinct: i64,
    /// What all sagas have counted and summed, in so many versions.
    pub(super) count: i64,
    pub(super) total: i64,
    pub(super) versions: i64,
    pub(super) dead: i64,
    /// Rows of the handler's own SQL.
    pub(super) own: i64,
}

pub(super) async fn connect(url: &str) -> Result<Option<SqliteConnection>> {
    let Some(file) = file_of(url) else { return Ok(None) };
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(std::time::Duration::from_secs(30));
    Ok(Some(options.disable_statement_logging().connect().await?))
}

/// The table that the handler writes into with its own SQL. No constraint: a second row must be seen, not refused.
pub(super) async fn create_business(spec: &Spec) -> Result<()> {
    if is_postgres(&spec.store) {
        let table = "create table business(id bigint generated always as identity primary key, saga bigint not null, \
                     amount bigint not null)";
        return postgres::script(&spec.store, table.into()).await;
    }
    let Some(mut connection) = connect(&spec.store).await? else { anyhow::bail!("own SQL needs a database") };
    sqlx::raw_sql("create table business(id integer primary key, saga integer not null, amount integer not null)")
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// `warm` messages were handled before the run; their numbers come after those of the run.
pub(super) async fn audit(spec: &Spec, warm: u64) -> Result<()> {
    let found = match spec.transport.as_deref() {
        _ if is_postgres(&spec.store) => Some(audit_postgres::look(spec).await?),
        Some(url) if is_broker(url) => {
            let (left, (out, distinct)) = (broker::left(url, NAME).await?, broker::count(url, SINK).await?);
            anyhow::ensure!(spec.work == Work::Queue, "behind a broker sagas are looked at in postgres only");
            Some(Found { left, out, distinct, ..Found::default() })
        }
        _ => look(spec).await?,
    };
    let Some(found) = found else { return Ok(()) };
    let n = i64::try_from(spec.messages + warm)?;
    let Found { left, out, distinct, count, total, versions, dead, own } = found;
    anyhow::ensure!(
        left == 0 && out == n && distinct == n,
        "audit: {n} sent, {left} left, {out} out, {distinct} of them distinct"
    );
    anyhow::ensure!(dead == 0, "audit: {dead} dead letters");
    if spec.work == Work::Saga {
        anyhow::ensure!(
            count == n && versions == n && total == n * (n + 1) / 2,
            "audit: {n} handled, the sagas counted {count} (numbers sum to {total}) in {versions} versions"
        );
        anyhow::ensure!(own == if spec.own_sql { n } else { 0 }, "audit: {own} business rows for {n} messages");
    }
    Ok(())
}

/// In SQLite files; None for another database.
async fn look(spec: &Spec) -> Result<Option<Found>> {
    let Some(mut bus) = connect(spec.transport.as_deref().unwrap_or(&spec.store)).await? else { return Ok(None) };
    let Some(mut store) = connect(&spec.store).await? else { return Ok(None) };
    let mut found = Found::default();
    (found.left,) = sqlx::query_as("select count(*) from queue where queue = ?").bind(NAME).fetch_one(&mut bus).await?;
    (found.out, found.distinct) = sqlx::query_as(
        "select count(*), count(distinct json_extract(cast(body as text), '$.seq')) from queue where queue = ?",
    )
    .bind(SINK)
    .fetch_one(&mut bus)
    .await?;
    if spec.work == Work::Saga {
        (found.count, found.total, found.versions) = sqlx::query_as(
            "select sum(json_extract(cast(state as text), '$.count')), sum(json_extract(cast(state as text), \
             '$.total')), sum(version) from saga",
        )
        .fetch_one(&mut store)
        .await?;
    }
    (found.dead,) = sqlx::query_as("select count(*) from dead_letter").fetch_one(&mut store).await?;
    if spec.own_sql {
        (found.own,) = sqlx::query_as("select count(*) from business").fetch_one(&mut store).await?;
    }
    Ok(Some(found))
}
