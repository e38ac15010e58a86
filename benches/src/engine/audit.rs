//! Looks into the files with plain SQL, as an outsider would: nothing lost, nothing doubled.

use super::bed::{NAME, SINK};
use crate::{
    args::{Spec, Work},
    files::file_of,
};
use anyhow::Result;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

pub(super) async fn connect(url: &str) -> Result<Option<SqliteConnection>> {
    let Some(file) = file_of(url) else { return Ok(None) };
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(std::time::Duration::from_secs(30));
    Ok(Some(options.disable_statement_logging().connect().await?))
}

/// The table that the handler writes into with its own SQL. No constraint: a second row must be seen, not refused.
pub(super) async fn create_business(spec: &Spec) -> Result<()> {
    let Some(mut connection) = connect(&spec.store).await? else { anyhow::bail!("own SQL needs a file") };
    sqlx::raw_sql("create table business(id integer primary key, saga integer not null, amount integer not null)")
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// `warm` messages were handled before the run; their numbers come after those of the run.
pub(super) async fn audit(spec: &Spec, warm: u64) -> Result<()> {
    let Some(mut bus) = connect(spec.transport.as_deref().unwrap_or(&spec.store)).await? else { return Ok(()) };
    let n = i64::try_from(spec.messages + warm)?;
    let (left,): (i64,) =
        sqlx::query_as("select count(*) from queue where queue = ?").bind(NAME).fetch_one(&mut bus).await?;
    let (out, distinct): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct json_extract(cast(body as text), '$.seq')) from queue where queue = ?",
    )
    .bind(SINK)
    .fetch_one(&mut bus)
    .await?;
    anyhow::ensure!(
        left == 0 && out == n && distinct == n,
        "audit: {n} sent, {left} left, {out} out, {distinct} of them distinct"
    );
    if spec.work != Work::Saga {
        return Ok(());
    }
    let Some(mut store) = connect(&spec.store).await? else { return Ok(()) };
    let (count, total, versions): (i64, i64, i64) = sqlx::query_as(
        "select sum(json_extract(cast(state as text), '$.count')), sum(json_extract(cast(state as text), '$.total')), \
         sum(version) from saga",
    )
    .fetch_one(&mut store)
    .await?;
    anyhow::ensure!(
        count == n && versions == n && total == n * (n + 1) / 2,
        "audit: {n} handled, the sagas counted {count} (numbers sum to {total}) in {versions} versions"
    );
    let (dead,): (i64,) = sqlx::query_as("select count(*) from dead_letter").fetch_one(&mut store).await?;
    anyhow::ensure!(dead == 0, "audit: {dead} dead letters");
    if spec.own_sql {
        let (own,): (i64,) = sqlx::query_as("select count(*) from business").fetch_one(&mut store).await?;
        anyhow::ensure!(own == n, "audit: {own} business rows for {n} messages");
    }
    Ok(())
}
