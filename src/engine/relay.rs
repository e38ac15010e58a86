//! Committed messages that nobody has in memory.

use super::{Dispatcher, EndpointContext, add};
use sagabus_core::{LeaseKeeper, OutboxId, OutboxRow, Result, crash};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

const ROWS_PER_PAGE: usize = 500;
/// After a caller's own transaction has recorded sends, its commit is looked for this often, and for so long.
const FAST_POLL: Duration = Duration::from_millis(20);
const FAST_POLL_FOR: Duration = Duration::from_secs(2);

/// Finds outbox rows that have no sender: those of nodes that are gone, and those of this node that an unknown commit or
/// a caller's own transaction left behind. It never takes a row because of its age.
pub(crate) async fn relay(
    shared: Arc<EndpointContext>,
    dispatcher: Dispatcher,
    keeper: Arc<LeaseKeeper>,
    enlisted: Arc<Notify>,
    period: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let runtime = shared.info.runtime.clone();
    let mut poll_fast_until = Duration::ZERO;
    while !*stop.borrow() {
        if keeper.is_good() {
            if let Err(error) = relay_orphans(&shared, &dispatcher).await {
                tracing::warn!(%error, "taking over outbox rows failed, trying again");
            }
            if let Err(error) = relay_own_rows(&shared, &dispatcher).await {
                tracing::warn!(%error, "looking for own outbox rows failed, trying again");
            }
        }
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = dispatcher.sweep_wanted() => {}
            // a caller has recorded sends in its own transaction: nobody says when that commits
            () = enlisted.notified() => poll_fast_until = runtime.elapsed() + FAST_POLL_FOR,
            () = runtime.sleep(if runtime.elapsed() < poll_fast_until { FAST_POLL } else { period }) => {}
        }
    }
}

async fn relay_orphans(shared: &EndpointContext, dispatcher: &Dispatcher) -> Result<()> {
    loop {
        let rows = shared.store.outbox_orphans(&shared.owner, ROWS_PER_PAGE).await?;
        if rows.is_empty() {
            return Ok(());
        }
        crash::reach("relay-read");
        let full = rows.len() == ROWS_PER_PAGE;
        hand_over(shared, dispatcher, rows);
        if !full {
            return Ok(());
        }
    }
}

/// Rows of this node that were there twice, a moment apart, and that nobody had in memory: a row whose commit has just
/// come back is not among them.
async fn relay_own_rows(shared: &EndpointContext, dispatcher: &Dispatcher) -> Result<()> {
    let mut after = OutboxId(0);
    loop {
        let unknown = |rows: Vec<OutboxRow>| rows.into_iter().filter(|row| !dispatcher.tracks(row.id));
        let page = shared.store.outbox_own(&shared.owner, after, ROWS_PER_PAGE).await?;
        let full = page.len() == ROWS_PER_PAGE;
        let last = page.last().map(|row| row.id);
        let seen: HashSet<OutboxId> = unknown(page).map(|row| row.id).collect();
        if !seen.is_empty() {
            shared.info.runtime.sleep(Duration::from_millis(100)).await;
            let page = shared.store.outbox_own(&shared.owner, after, ROWS_PER_PAGE).await?;
            let rows: Vec<OutboxRow> = unknown(page).filter(|row| seen.contains(&row.id)).collect();
            hand_over(shared, dispatcher, rows);
        }
        match last {
            Some(last) if full => after = last,
            _ => return Ok(()),
        }
    }
}

fn hand_over(shared: &EndpointContext, dispatcher: &Dispatcher, rows: Vec<OutboxRow>) {
    if rows.is_empty() {
        return;
    }
    tracing::info!(rows = rows.len(), endpoint = %shared.info.name, "relay sends committed messages without a sender");
    add(&shared.counters.relayed, rows.len());
    dispatcher.send(rows.into_iter().map(|row| (row.id, row.outgoing)).collect());
}
