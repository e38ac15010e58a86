use super::{
    faults::Operation,
    handle::MemoryStore,
    model::Model,
    rows::{More, Row},
    timer::is,
};
use async_trait::async_trait;
use sagabus_core::{
    AuditEntry, DeadLetter, PendingTimer, Position, PositionReset, Result, RowTable, SagaRow, StoreAdmin, TimerId,
    Timestamp,
};
use std::collections::BTreeMap;

impl Model {
    fn count(&self) -> BTreeMap<String, u64> {
        let misc = self.inbox.values().filter(|row| row.misc).count();
        let mut counts = BTreeMap::from([
            ("saga", self.sagas.len()),
            ("saga_alias", self.aliases.len()),
            ("inbox", self.inbox.len() - misc),
            ("inbox_misc", misc),
            ("outbox", self.outbox.len()),
            ("attempt", self.attempts.len()),
            ("log_position", self.positions.len()),
            ("operator_audit", self.audit.len()),
            ("node", self.groups.values().map(super::lease::Group::members).sum()),
            (RowTable::Queue.name(), self.queue_of.len()),
        ]);
        for table in RowTable::DUE {
            counts.insert(table.name(), self.due.get(&table).map_or(0, BTreeMap::len));
        }
        counts.into_iter().map(|(name, count)| (name.to_string(), count as u64)).collect()
    }

    fn timer(&mut self, endpoint: &str, id: TimerId) -> Option<i64> {
        let mut rows = self.table(RowTable::Timer).iter();
        rows.find(|(_, row)| *row.endpoint == *endpoint && is(row, id)).map(|(id, _)| *id)
    }
}

#[async_trait]
impl StoreAdmin for MemoryStore {
    async fn dead_letters(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<DeadLetter>> {
        self.run(Operation::Admin, |model, _| {
            let rows = model.table(RowTable::DeadLetter).range(after.saturating_add(1)..);
            let rows = rows.filter(|(_, row)| *row.endpoint == *endpoint);
            rows.filter_map(|(id, row)| dead_letter(*id, row)).take(limit).collect()
        })
        .await
    }

    async fn retry_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        self.run(Operation::Admin, |model, now| {
            let mut count = 0;
            for id in ids {
                let Some(row) = model.table(RowTable::DeadLetter).get_mut(id) else { continue };
                if *row.endpoint == *endpoint
                    && let More::DeadLetter { retrying, .. } = &mut row.more
                    && !std::mem::replace(retrying, true)
                {
                    (row.due, row.token) = (now, row.token + 1);
                    count += 1;
                }
            }
            model.wake_due(endpoint);
            count
        })
        .await
    }

    async fn discard_dead_letters(&self, endpoint: &str, ids: &[i64]) -> Result<u64> {
        self.run(Operation::Admin, |model, _| {
            let rows = model.table(RowTable::DeadLetter);
            let before = rows.len();
            rows.retain(|id, row| *row.endpoint != *endpoint || !ids.contains(id));
            (before - rows.len()) as u64
        })
        .await
    }

    async fn timers(&self, endpoint: &str, after: Option<(Timestamp, i64)>, limit: usize) -> Result<Vec<PendingTimer>> {
        self.run(Operation::Admin, |model, _| {
            let rows = model.table(RowTable::Timer).iter();
            let mut rows: Vec<_> = rows.filter(|(_, row)| *row.endpoint == *endpoint).collect();
            rows.sort_by_key(|(id, row)| (row.due, **id));
            let later = |(id, row): &(&i64, &Row)| after.is_none_or(|after| (row.due, **id) > after);
            rows.into_iter().filter(later).filter_map(|(id, row)| pending(*id, row)).take(limit).collect()
        })
        .await
    }

    async fn move_timer(&self, endpoint: &str, id: TimerId, due: Timestamp) -> Result<bool> {
        self.run(Operation::Admin, |model, _| {
            let Some(row) = model.timer(endpoint, id) else { return false };
            if let Some(row) = model.table(RowTable::Timer).get_mut(&row) {
                (row.due, row.token) = (due, row.token + 1);
            }
            model.wake_due(endpoint);
            true
        })
        .await
    }

    async fn cancel_timer(&self, endpoint: &str, id: TimerId) -> Result<bool> {
        self.run(Operation::Admin, |model, _| {
            let row = model.timer(endpoint, id);
            row.is_some_and(|row| model.table(RowTable::Timer).remove(&row).is_some())
        })
        .await
    }

    async fn saga(&self, kind: &str, key: &str) -> Result<Option<SagaRow>> {
        self.run(Operation::Admin, |model, _| model.saga_entry(kind, key).map(|entry| entry.row.clone())).await
    }

    async fn saga_keys(&self, kind: &str, after: &str, limit: usize) -> Result<Vec<String>> {
        self.run(Operation::Admin, |model, _| {
            let keys = model.sagas.keys().filter(|(k, key)| *k == kind && key.as_str() > after);
            keys.map(|(_, key)| key.clone()).take(limit).collect()
        })
        .await
    }

    async fn positions(&self, endpoint: &str) -> Result<Vec<Position>> {
        self.run(Operation::Admin, |model, _| model.positions_of(endpoint)).await
    }

    async fn reset_positions(&self, endpoint: &str, reset: &PositionReset) -> Result<u64> {
        self.run(Operation::Admin, |model, now| model.reset_positions(endpoint, reset, now)).await
    }

    async fn audit(&self, endpoint: &str, after: i64, limit: usize) -> Result<Vec<AuditEntry>> {
        self.run(Operation::Admin, |model, _| {
            let entries = model.audit.iter().filter(|(of, entry)| of == endpoint && entry.id > after);
            entries.map(|(_, entry)| entry.clone()).take(limit).collect()
        })
        .await
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        self.run(Operation::Admin, |model, _| model.count()).await
    }
}

fn dead_letter(id: i64, row: &Row) -> Option<DeadLetter> {
    let More::DeadLetter { at, reason, detail, retrying } = &row.more else { return None };
    Some(DeadLetter {
        id,
        handler: row.handler.to_string(),
        at: *at,
        attempts: row.attempts,
        reason: reason.clone(),
        detail: detail.clone(),
        retrying: *retrying,
        message: row.message.clone(),
    })
}

fn pending(number: i64, row: &Row) -> Option<PendingTimer> {
    let More::Timer(id) = row.more else { return None };
    let headers = &row.message.headers;
    Some(PendingTimer {
        id,
        row: number,
        due: row.due,
        saga: headers.saga.clone(),
        message_type: headers.message_type.clone(),
        message_id: headers.message_id,
    })
}
