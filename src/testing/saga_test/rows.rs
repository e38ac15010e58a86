//! What a store would hold.

use sagabus_core::{
    Due, Envelope, InstanceId, SagaChange, SagaLookup, SagaRow, SagaWrite, TimerChange, TimerId, Timestamp,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

#[derive(Default)]
pub(super) struct Rows {
    by_key: HashMap<String, SagaRow>,
    aliases: HashMap<(String, String), String>,
    ended: HashSet<String>,
    pub(super) timers: Vec<Timer>,
}

/// A timeout that has not come yet.
pub(super) struct Timer {
    id: TimerId,
    pub(super) due: Timestamp,
    pub(super) message: Arc<Envelope>,
}

impl Timer {
    fn is_of(&self, instance: InstanceId) -> bool {
        self.message.headers.saga.as_ref().is_some_and(|saga| saga.instance == instance)
    }
}

impl Rows {
    pub(super) fn row(&self, key: &str) -> Option<&SagaRow> {
        self.by_key.get(key)
    }

    /// Whether a saga completed under this key, and none has begun since.
    pub(super) fn has_ended(&self, key: &str) -> bool {
        self.ended.contains(key) && self.by_key.get(key).is_none_or(|row| row.completed)
    }

    pub(super) fn find(&self, lookup: &SagaLookup) -> Option<&SagaRow> {
        match lookup {
            SagaLookup::Key { key, .. } => self.by_key.get(key),
            SagaLookup::Alias { alias, value, .. } => {
                self.by_key.get(self.aliases.get(&(alias.clone(), value.clone()))?)
            }
            SagaLookup::Instance(address) => self.by_key.get(&address.key).filter(|r| r.instance == address.instance),
        }
    }

    pub(super) fn change_timers(&mut self, change: TimerChange, now: Timestamp) {
        match change {
            TimerChange::Set { id, due, message } => {
                let due = match due {
                    Due::After(delay) => now.plus(delay),
                    Due::At(moment) => moment,
                };
                self.timers.push(Timer { id, due, message: Arc::new(*message) });
            }
            TimerChange::Cancel { id, .. } => self.timers.retain(|timer| timer.id != id),
            TimerChange::CancelType { instance, message_type, .. } => {
                self.timers.retain(|timer| timer.message.headers.message_type != message_type || !timer.is_of(instance))
            }
        }
    }

    /// The next timer that is due by then, taken out.
    pub(super) fn take_due(&mut self, by: Timestamp) -> Option<Timer> {
        let (at, _) = self.timers.iter().enumerate().filter(|(_, t)| t.due <= by).min_by_key(|(at, t)| (t.due, *at))?;
        Some(self.timers.remove(at))
    }

    pub(super) fn write(&mut self, write: SagaWrite) {
        let SagaWrite { kind, key, change, aliases } = write;
        match change {
            SagaChange::Create { instance, state, schema, origin } => {
                let row =
                    SagaRow { kind, key: key.clone(), instance, version: 1, state, schema, origin, completed: false };
                self.by_key.insert(key.clone(), row);
            }
            SagaChange::Update { version, state, schema, .. } => {
                if let Some(row) = self.by_key.get_mut(&key) {
                    (row.version, row.state, row.schema) = (version + 1, state, schema);
                }
            }
            SagaChange::Complete { instance, keep, .. } => {
                self.timers.retain(|timer| !timer.is_of(instance));
                self.aliases.retain(|_, owner| *owner != key);
                self.ended.insert(key.clone());
                match (keep, self.by_key.get_mut(&key)) {
                    (Some((_, state)), Some(row)) => (row.completed, row.state) = (true, state),
                    _ => drop(self.by_key.remove(&key)),
                }
            }
        }
        for alias in aliases {
            self.aliases.insert(alias, key.clone());
        }
    }
}
