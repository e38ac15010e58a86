//! From the due tables to the engine: timers, retries, parked messages, dead letters that are sent again.

use super::{EndpointContext, Event};
use foldhash::{HashMap, HashSet};
use sagabus_core::{DueQuery, DueRow, LeaseKeeper, RowGate, RowTable, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// Most rows of one table in flight: memory stays flat however many are due.
const MAX_ROWS_IN_FLIGHT: usize = 1024;
const ROWS_PER_PAGE: usize = 256;
/// How often the tables are read when no hint says so, as [`Store::wait_due`](sagabus_core::Store::wait_due) promises.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// One table's reading: forward from the start to a page that is not full, then again when something may be due.
struct TableScan {
    table: RowTable,
    after: Option<(Timestamp, i64)>,
    in_flight: usize,
    /// When to read again, on the runtime's clock.
    next: Duration,
}

/// Reads rows that are due, in the shards this node owns, without changing them; the commit claims the gate.
pub(crate) async fn due_reader(
    shared: Arc<EndpointContext>,
    keeper: Arc<LeaseKeeper>,
    events: mpsc::UnboundedSender<Event>,
    mut done: mpsc::UnboundedReceiver<Vec<RowGate>>,
    mut stop: watch::Receiver<bool>,
) {
    let runtime = shared.info.runtime.clone();
    let mut lease = keeper.watch();
    let mut tables = RowTable::DUE.map(|table| TableScan { table, after: None, in_flight: 0, next: Duration::ZERO });
    let mut in_flight: HashMap<RowGate, u16> = HashMap::default();
    while !*stop.borrow() {
        let view = keeper.view();
        let surplus: HashSet<u16> = view.surplus.iter().copied().collect();
        let shards: Vec<u16> = view.shards.iter().map(|(s, _)| *s).filter(|s| !surplus.contains(s)).collect();
        for (shard, epoch) in view.shards.iter().filter(|(s, _)| surplus.contains(s)) {
            if !in_flight.values().any(|other| other == shard) {
                keeper.release(*shard, *epoch);
            }
        }
        for table in &mut tables {
            let now = runtime.elapsed();
            if table.next > now || table.in_flight >= MAX_ROWS_IN_FLIGHT || shards.is_empty() {
                continue;
            }
            match read(&shared, table, &shards, now, &mut in_flight).await {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    table.in_flight += rows.len();
                    if events.send(Event::Due(rows)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, table = table.table.name(), "reading due rows failed, trying again");
                    table.next = now + POLL_INTERVAL;
                }
            }
        }
        let now = runtime.elapsed();
        let busy = |t: &&TableScan| t.in_flight < MAX_ROWS_IN_FLIGHT && !shards.is_empty();
        let next = tables.iter().filter(busy).map(|t| t.next).min().unwrap_or(now + POLL_INTERVAL);
        let pause = next.saturating_sub(now).min(POLL_INTERVAL);
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            gates = done.recv() => match gates {
                Some(gates) => forget_done(&gates, &mut tables, &mut in_flight),
                None => return,
            },
            changed = lease.changed() => {
                if changed.is_err() {
                    return;
                }
                rescan(&mut tables);
            }
            () = hint(&shared, pause) => {
                // a hint or the time: whatever is next may be due now
                for table in &mut tables {
                    table.next = table.next.min(runtime.elapsed());
                }
            }
        }
        while let Ok(gates) = done.try_recv() {
            forget_done(&gates, &mut tables, &mut in_flight);
        }
    }
}

async fn hint(shared: &EndpointContext, pause: Duration) {
    if !pause.is_zero() {
        shared.store.wait_due(&shared.info.name, pause).await;
    }
}

fn rescan(tables: &mut [TableScan]) {
    for table in tables {
        table.after = None;
        table.next = Duration::ZERO;
    }
}

fn forget_done(gates: &[RowGate], tables: &mut [TableScan], in_flight: &mut HashMap<RowGate, u16>) {
    for gate in gates {
        if in_flight.remove(gate).is_some()
            && let Some(table) = tables.iter_mut().find(|t| t.table == gate.table)
        {
            table.in_flight = table.in_flight.saturating_sub(1);
        }
    }
}

/// Reads one page; what is in flight already is skipped.
async fn read(
    shared: &EndpointContext,
    table: &mut TableScan,
    shards: &[u16],
    now: Duration,
    in_flight: &mut HashMap<RowGate, u16>,
) -> sagabus_core::Result<Vec<DueRow>> {
    let query = DueQuery {
        endpoint: shared.info.name.clone(),
        table: table.table,
        shards: shards.to_vec(),
        after: table.after,
        limit: ROWS_PER_PAGE,
    };
    let page = shared.store.due(&query).await?;
    if page.rows.len() < ROWS_PER_PAGE {
        table.after = None;
        table.next = now + page.next.unwrap_or(POLL_INTERVAL).clamp(Duration::from_millis(1), POLL_INTERVAL);
    } else {
        table.after = page.rows.last().map(|row| (row.due, row.gate.id));
        table.next = now;
    }
    let mut rows = page.rows;
    rows.retain(|row| in_flight.insert(row.gate, row.shard).is_none());
    Ok(rows)
}
