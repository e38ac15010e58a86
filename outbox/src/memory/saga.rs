use super::{
    model::Model,
    rows::{AliasEntry, More, SagaEntry},
};
use sagabus_core::{InstanceId, RowTable, SagaChange, SagaRow, SagaWrite, Timestamp, alias_key, sabotage};
use std::sync::Arc;

impl Model {
    pub(super) fn saga_entry(&self, kind: &str, key: &str) -> Option<&SagaEntry> {
        self.sagas.get(&(kind.to_string(), key.to_string()))
    }

    /// Whether the saga has an instance that has not completed.
    pub(super) fn is_alive(&self, kind: &str, key: &str) -> bool {
        self.saga_entry(kind, key).is_some_and(|entry| !entry.row.completed)
    }

    /// Whether a message that was parked for this key, or for this alias of a saga, has its saga now.
    pub(super) fn has_arrived(&self, kind: &str, key: &str) -> bool {
        let named = |(k, alias, value): &(String, String, String)| k == kind && alias_key(alias, value) == key;
        self.is_alive(kind, key) || self.aliases.keys().any(named)
    }

    /// Whether the row is what the write was built on.
    pub(super) fn saga_fits(&self, write: &SagaWrite) -> bool {
        match &write.change {
            SagaChange::Create { .. } | SagaChange::Complete { version: 0, .. } => {
                !self.is_alive(&write.kind, &write.key)
            }
            SagaChange::Update { instance, version, .. } | SagaChange::Complete { instance, version, .. } => {
                let row = self.saga_entry(&write.kind, &write.key).map(|entry| &entry.row);
                row.is_some_and(|row| {
                    !row.completed
                        && (row.instance == *instance || sabotage::active("no-instance-check"))
                        && (row.version == *version || sabotage::active("no-version-check"))
                })
            }
        }
    }

    pub(super) fn write_saga(&mut self, endpoint: &Arc<str>, write: &SagaWrite, now: Timestamp) {
        let address = (write.kind.to_string(), write.key.clone());
        let before = self.sagas.remove(&address).map(|entry| entry.row);
        let row = |instance: &InstanceId, version, state: &bytes::Bytes, schema, origin, completed| SagaRow {
            kind: write.kind.clone(),
            key: write.key.clone(),
            instance: *instance,
            version,
            state: state.clone(),
            schema,
            origin,
            completed,
        };
        let entry = match &write.change {
            SagaChange::Create { instance, state, schema, origin } => {
                self.adopt(endpoint, &write.kind, &write.key, now);
                let row = row(instance, 1, state, *schema, origin.clone(), false);
                Some(SagaEntry { row, keep: None })
            }
            SagaChange::Update { instance, version, state, schema } => {
                let origin = before.and_then(|row| row.origin);
                let row = row(instance, version + 1, state, *schema, origin, false);
                Some(SagaEntry { row, keep: None })
            }
            SagaChange::Complete { instance, version, keep } => {
                self.drop_timers(&write.kind, &write.key, *instance);
                self.aliases.retain(|(kind, _, _), alias| **kind != *write.kind || alias.key != write.key);
                keep.as_ref().map(|(time, state)| {
                    // a kept row of an earlier instance says nothing about this one
                    let before = before.filter(|row| row.instance == *instance);
                    let (schema, origin) = before.map_or((0, None), |row| (row.schema, row.origin));
                    let row = row(instance, version + 1, state, schema, origin, true);
                    SagaEntry { row, keep: Some(now.plus(*time)) }
                })
            }
        };
        let Some(entry) = entry else { return };
        if !entry.row.completed {
            for (name, value) in &write.aliases {
                self.adopt(endpoint, &write.kind, &alias_key(name, value), now);
                let alias = AliasEntry { key: write.key.clone(), instance: entry.row.instance };
                self.aliases.insert((address.0.clone(), name.clone(), value.clone()), alias);
            }
        }
        self.sagas.insert(address, entry);
    }

    /// Makes what was parked for this saga due. An earlier reading of those rows, as overdue, is void.
    fn adopt(&mut self, endpoint: &Arc<str>, kind: &str, key: &str, now: Timestamp) {
        for row in self.table(RowTable::Parked).values_mut() {
            if matches!(&row.more, More::ParkedForSaga(k, v) if **k == *kind && v == key) {
                row.due = row.due.min(now);
                row.token += 1;
            }
        }
        self.wake_due(endpoint);
    }
}
