//! The audit on PostgreSQL: the same questions, in its SQL.

use super::{
    audit::Found,
    fixture::{NAME, SINK},
};
use crate::{
    args::{Spec, Work},
    broker::{self, is_broker},
    postgres::connect,
};
use anyhow::Result;

const IN_QUEUE: &str = "from queue where id >> 45 = (select number from queue_name where name = $1)";

pub(super) async fn look(spec: &Spec) -> Result<Found> {
    let mut found = Found::default();
    match spec.transport.as_deref().filter(|url| is_broker(url)) {
        Some(url) => {
            found.left = broker::left(url, NAME).await?;
            (found.out, found.distinct) = broker::count(url, SINK).await?;
        }
        None => queues(spec, &mut found).await?,
    }
    let mut store = connect(&spec.store).await?;
    if spec.work == Work::Saga {
        let sums = "select coalesce(sum((s->>'count')::bigint), 0)::bigint, coalesce(sum((s->>'total')::bigint), \
                    0)::bigint, coalesce(sum(version), 0)::bigint from (select version, convert_from(state, \
                    'UTF8')::json s from saga) t";
        (found.count, found.total, found.versions) = sqlx::query_as(sums).fetch_one(&mut store).await?;
    }
    (found.dead,) = sqlx::query_as("select count(*) from dead_letter").fetch_one(&mut store).await?;
    if spec.own_sql {
        (found.own,) = sqlx::query_as("select count(*) from business").fetch_one(&mut store).await?;
    }
    Ok(found)
}

async fn queues(spec: &Spec, found: &mut Found) -> Result<()> {
    let mut bus = connect(spec.transport.as_deref().unwrap_or(&spec.store)).await?;
    let left = sqlx::AssertSqlSafe(format!("select count(*) {IN_QUEUE}"));
    (found.left,) = sqlx::query_as(left).bind(NAME).fetch_one(&mut bus).await?;
    let out = sqlx::AssertSqlSafe(format!(
        "select count(*), count(distinct convert_from(body, 'UTF8')::json->>'seq') {IN_QUEUE}"
    ));
    (found.out, found.distinct) = sqlx::query_as(out).bind(SINK).fetch_one(&mut bus).await?;
    Ok(())
}
