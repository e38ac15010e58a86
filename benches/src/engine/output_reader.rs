//! Watches the sink's queue as another reader would, and notes when each output is there.

use super::fixture::{Fixture, SINK};
use crate::{
    args::Spec,
    broker::{self, is_broker},
    latency::{Clock, Latencies},
    payload::Output,
    postgres::{connect, is_postgres},
};
use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// How long a row may become visible after one with a higher id.
const LATE: u64 = 30_000;

/// Until there are so many outputs.
pub(super) fn read_outputs(
    fixture: Fixture,
    first: i64,
    spec: &Spec,
    clock: Clock,
    seen: Arc<AtomicU64>,
) -> JoinHandle<Result<Latencies>> {
    let (url, messages) = (spec.transport.clone().unwrap_or_else(|| spec.store.clone()), spec.messages);
    tokio::spawn(async move {
        if is_broker(&url) {
            broker::read_outputs(&url, SINK, messages, clock, &seen).await
        } else if is_postgres(&url) {
            on_postgres(&url, first, messages, clock, &seen).await
        } else {
            through_queues(&fixture, first, messages, clock, &seen).await
        }
    })
}

async fn through_queues(
    fixture: &Fixture,
    first: i64,
    messages: u64,
    clock: Clock,
    seen: &AtomicU64,
) -> Result<Latencies> {
    let queues = fixture.queues()?;
    let shards: Vec<u16> = (0..sagabus::ports::SHARDS).collect();
    let mut latencies = Latencies::default();
    let (mut after, mut count) = (first, 0);
    while count < messages {
        let rows = queues.read(SINK, &shards, after, 1000).await?;
        let now = clock.micros();
        if rows.is_empty() {
            queues.wait(SINK, Duration::from_millis(20)).await;
            continue;
        }
        for row in &rows {
            let output: Output = serde_json::from_slice(&row.body)?;
            latencies.extend(std::iter::once(now.saturating_sub(output.at)));
            after = row.id;
        }
        count += rows.len() as u64;
        seen.store(count, Ordering::Release);
    }
    Ok(latencies)
}

/// Commits run side by side there: a row may appear behind others with higher ids, so the last ones are read again.
async fn on_postgres(url: &str, first: i64, messages: u64, clock: Clock, seen: &AtomicU64) -> Result<Latencies> {
    let mut connection = connect(url).await?;
    let queue = "select number::bigint from queue_name where name = $1";
    let (number,): (i64,) = sqlx::query_as(queue).bind(SINK).fetch_one(&mut connection).await?;
    // the beginning says when it was due
    let page = "select id, substring(body for 120) from queue where id > $1 and id < $2 order by id";
    let mut latencies = Latencies::default();
    let mut low = first.max(number << 45);
    let mut known: BTreeMap<i64, ()> = BTreeMap::new();
    let mut newest: VecDeque<(u64, i64)> = VecDeque::new();
    let mut count = 0;
    while count < messages {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as(page).bind(low).bind((number + 1) << 45).fetch_all(&mut connection).await?;
        let now = clock.micros();
        for (id, head) in &rows {
            if known.insert(*id, ()).is_none() {
                latencies.extend(std::iter::once(now.saturating_sub(due(head)?)));
                count += 1;
            }
        }
        newest.extend(rows.last().map(|(id, _)| (now, *id)));
        while newest.front().is_some_and(|(at, _)| at + LATE < now) {
            low = newest.pop_front().map_or(low, |(_, id)| id);
        }
        known = known.split_off(&low);
        seen.store(count, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(latencies)
}

/// The moment in an output's beginning.
fn due(head: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(head)?;
    let digits = text.split_once("\"at\":").map(|(_, rest)| rest.split(',').next().unwrap_or_default());
    digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("an output begins with {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Counter, Input};

    #[test]
    fn an_output_says_early_when_it_was_due() {
        let output = Counter::default().handle(&Input::new(9_999_999, 123_456_789, 987_654_321_012));
        let json = serde_json::to_vec(&output).unwrap();
        assert_eq!(due(&json[..120]).unwrap(), 987_654_321_012);
    }
}
