//! An inbox with history.

use super::{audit::connect, bed::NAME};
use crate::args::Spec;
use anyhow::Result;

/// Puts as many rows into the inbox as the spec says, with ids like those of handled messages.
pub(super) async fn fill(spec: &Spec) -> Result<()> {
    if spec.inbox == 0 {
        return Ok(());
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
