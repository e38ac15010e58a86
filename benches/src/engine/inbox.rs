//! An inbox with history.

use super::{audit::connect, fixture::NAME};
use crate::{
    args::Spec,
    postgres::{self, is_postgres},
};
use anyhow::Result;

/// Puts as many rows into the inbox as the spec says, with ids like those of handled messages.
pub(super) async fn fill(spec: &Spec) -> Result<()> {
    if spec.inbox == 0 {
        return Ok(());
    }
    if is_postgres(&spec.store) {
        return fill_postgres(spec).await;
    }
    let Some(mut connection) = connect(&spec.store).await? else { return Ok(()) };
    // UUIDv7 by layout: milliseconds of the last hours, then random bits
    sqlx::query(
        "insert or ignore into inbox(day, endpoint, handler, message_id) \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < ?), \
         t(ms) as (select cast(unixepoch('now', 'subsec') * 1000 as integer) - (? - i) from n) \
         select ms / 86400000, ?, 'counting', \
         unhex(substr(printf('%012x', ms), 1, 12) || '7' || substr(hex(randomblob(2)), 1, 3) || '8' || \
         substr(hex(randomblob(8)), 1, 15)) from t",
    )
    .bind(spec.inbox.cast_signed())
    .bind(spec.inbox.cast_signed())
    .bind(NAME)
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("pragma wal_checkpoint(truncate)").execute(&mut connection).await?;
    Ok(())
}

/// Over the last three days, so that the partition of today has its share, and at most an hour ago.
async fn fill_postgres(spec: &Spec) -> Result<()> {
    let mut connection = postgres::connect(&spec.store).await?;
    sqlx::query(
        "insert into inbox(day, message_id, handler, endpoint) select ms / 86400000, \
         (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(r, 1, 3) || '-8' || substr(r, 4, 3) || '-' || \
         substr(r, 7, 12))::uuid, 'counting', $2 from (select ms, lpad(to_hex(ms), 12, '0') h, md5(random()::text) r \
         from (select (extract(epoch from clock_timestamp()) * 1000)::bigint - 3600000 - i * 259200000 / $1 ms from \
         generate_series(1, $1) i) m) t on conflict do nothing",
    )
    .bind(spec.inbox.cast_signed())
    .bind(NAME)
    .execute(&mut connection)
    .await?;
    // what autovacuum has long done where rows came one after another
    sqlx::raw_sql("vacuum (freeze, analyze) inbox").execute(&mut connection).await?;
    Ok(())
}
