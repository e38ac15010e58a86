//! Tables as plain maps, with two ways to apply a batch: unit by unit, and folded.

use super::super::{End, FoldedBatch, Start};
use sagabus_core::{
    Disposition, Due, Gate, InstanceId, MessageId, ParkedUntil, RowTable, SagaChange, SagaWrite, TimerChange, TimerId,
    UnitOfWork, alias_key,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

type Key = (String, String);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saga {
    pub(super) instance: InstanceId,
    pub(super) version: i64,
    pub(super) state: Vec<u8>,
    pub(super) schema: u32,
    /// For this time, if it is completed.
    pub(super) kept: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timer {
    pub(super) saga: (Key, InstanceId),
    pub(super) message_type: String,
    pub(super) due: Due,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parked {
    pub(super) message: MessageId,
    pub(super) saga: Option<Key>,
    pub(super) blocked_key: Option<String>,
    pub(super) delay: Duration,
}

/// The tables of a store, as far as units change them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tables {
    pub(super) sagas: BTreeMap<Key, Saga>,
    /// (kind, `name=value`) to (key, instance).
    pub(super) aliases: BTreeMap<Key, (String, InstanceId)>,
    pub(super) timers: BTreeMap<u128, Timer>,
    pub(super) parked: Vec<Parked>,
    pub(super) inbox: BTreeSet<(String, u128)>,
    pub(super) rows: BTreeSet<(RowTable, i64, i64)>,
    pub(super) attempts: BTreeSet<(String, u128)>,
    pub(super) retries: Vec<(MessageId, Option<String>, u32, Duration)>,
    pub(super) dead_letters: Vec<(MessageId, u32, String)>,
    pub(super) sends: Vec<(MessageId, bool)>,
}

impl Tables {
    pub(super) fn is_live(&self, key: &Key) -> bool {
        self.sagas.get(key).is_some_and(|saga| saga.kept.is_none())
    }

    fn exists(&self, key: &Key) -> bool {
        self.is_live(key) || self.aliases.contains_key(key)
    }

    fn adopt(&mut self, key: &Key) {
        for parked in self.parked.iter_mut().filter(|parked| parked.saga.as_ref() == Some(key)) {
            parked.delay = Duration::ZERO;
        }
    }

    /// Applies one unit, which must fit.
    pub(super) fn apply(&mut self, unit: &UnitOfWork) {
        let handler = unit.handler.to_string();
        match unit.gate {
            Gate::None => {}
            Gate::Inbox => assert!(self.inbox.insert((handler.clone(), unit.message_id.0.as_u128()))),
            Gate::Row(row) => assert!(self.rows.remove(&(row.table, row.id, row.token))),
        }
        for change in &unit.timers {
            self.timer(change);
        }
        if let Some(write) = &unit.saga {
            self.saga(write);
        }
        if unit.has_attempt_row {
            self.attempts.remove(&(handler, unit.message_id.0.as_u128()));
        }
        match &unit.disposition {
            Disposition::Handled | Disposition::Dropped { .. } => {}
            Disposition::Deferred { message, key, attempts, delay, .. } => {
                self.retries.push((message.headers.message_id, key.clone(), *attempts, *delay));
            }
            Disposition::DeadLettered { message, attempts, reason, .. } => {
                self.dead_letters.push((message.headers.message_id, *attempts, reason.clone()));
            }
            Disposition::Parked { message, until, .. } => {
                let (saga, blocked_key, delay) = match until {
                    ParkedUntil::Saga { kind, key, at_most } => {
                        let saga = (kind.to_string(), key.clone());
                        let delay = if self.exists(&saga) { Duration::ZERO } else { *at_most };
                        (Some(saga), None, delay)
                    }
                    ParkedUntil::KeyUnblocked { key } => (None, Some(key.clone()), Duration::ZERO),
                };
                self.parked.push(Parked { message: message.headers.message_id, saga, blocked_key, delay });
            }
        }
        self.sends.extend(unit.sends.iter().map(|send| (send.message.headers.message_id, unit.fresh_ids)));
    }

    fn timer(&mut self, change: &TimerChange) {
        let of = |kind: &str, key: &str| (kind.to_owned(), key.to_owned());
        match change {
            TimerChange::Set { id, due, message } => {
                let saga = message.headers.saga.as_ref().expect("a timer's saga");
                let saga = (of(&saga.kind, &saga.key), saga.instance);
                let timer = Timer { saga, message_type: message.headers.message_type.clone(), due: *due };
                self.timers.insert(id.0.as_u128(), timer);
            }
            TimerChange::Cancel { kind, key, id } => {
                self.timers.retain(|other, timer| !(*other == id.0.as_u128() && timer.saga.0 == of(kind, key)));
            }
            TimerChange::CancelType { kind, key, instance, message_type } => {
                let saga = (of(kind, key), *instance);
                self.timers.retain(|_, timer| !(timer.saga == saga && timer.message_type == *message_type));
            }
        }
    }

    fn saga(&mut self, write: &SagaWrite) {
        let key = (write.kind.to_string(), write.key.clone());
        let live = self.sagas.get(&key).filter(|saga| saga.kept.is_none()).cloned();
        let (live_instance, live_version) = live.as_ref().map_or((None, 0), |saga| (Some(saga.instance), saga.version));
        match &write.change {
            SagaChange::Create { instance, state, schema, .. } => {
                assert!(live.is_none());
                let saga = Saga { instance: *instance, version: 1, state: state.to_vec(), schema: *schema, kept: None };
                self.sagas.insert(key.clone(), saga);
                self.adopt(&key);
            }
            SagaChange::Update { instance, version, state, schema } => {
                assert_eq!((live_instance, live_version), (Some(*instance), *version));
                let (state, version) = (state.to_vec(), version + 1);
                self.sagas
                    .insert(key.clone(), Saga { instance: *instance, version, state, schema: *schema, kept: None });
            }
            SagaChange::Complete { instance, version, keep } => {
                assert_eq!(live_version, *version);
                self.sagas.remove(&key);
                if let Some((time, state)) = keep {
                    let schema = live.map_or(0, |saga| saga.schema);
                    let (state, version) = (state.to_vec(), version + 1);
                    self.sagas
                        .insert(key.clone(), Saga { instance: *instance, version, state, schema, kept: Some(*time) });
                }
                self.aliases.retain(|(kind, _), (of, _)| !(*kind == key.0 && *of == key.1));
                self.timers.retain(|_, timer| timer.saga != (key.clone(), *instance));
                return;
            }
        }
        let instance = self.sagas[&key].instance;
        for (name, value) in &write.aliases {
            let alias = (key.0.clone(), alias_key(name, value));
            self.aliases.insert(alias.clone(), (key.1.clone(), instance));
            self.adopt(&alias);
        }
    }

    /// Applies a folded batch as the statements of a SQL store do.
    pub(super) fn apply_folded(&mut self, folded: &FoldedBatch<'_>) {
        assert_rows_are_distinct(folded);
        let before = self.clone();
        for (_, handler, id) in &folded.inbox {
            assert!(self.inbox.insert((handler.to_string(), id.0.as_u128())));
        }
        for (table, rows) in &folded.rows {
            assert!(rows.iter().all(|(id, token)| self.rows.remove(&(*table, *id, *token))));
        }
        for (handler, id) in &folded.attempt_rows {
            self.attempts.remove(&(handler.to_string(), id.0.as_u128()));
        }
        for chain in &folded.chains {
            let key = (chain.kind.to_string(), chain.key.to_owned());
            let live = self.sagas.get(&key).filter(|saga| saga.kept.is_none());
            match chain.start {
                Start::Absent => assert!(live.is_none()),
                Start::At(instance, version) => {
                    assert_eq!(live.map(|saga| (saga.instance, saga.version)), Some((instance, version)));
                    assert_eq!(chain.expected_version(), version);
                }
            }
            let schema = chain.schema.or(live.map(|saga| saga.schema)).unwrap_or(0);
            let kept = match chain.end {
                End::Live => None,
                End::Kept(time, _) => Some(time),
                End::Gone => {
                    self.sagas.remove(&key);
                    continue;
                }
            };
            let (instance, version) = (chain.instance, chain.version);
            self.sagas.insert(key, Saga { instance, version, state: chain.stored_state().to_vec(), schema, kept });
        }
        for (kind, key, instance) in &folded.ended {
            self.aliases.retain(|(other, _), (of, _)| !(*other == ***kind && of == key));
            let saga = ((kind.to_string(), (*key).to_owned()), *instance);
            self.timers.retain(|_, timer| timer.saga != saga);
        }
        for alias in &folded.aliases {
            let key = (alias.kind.to_string(), alias_key(alias.name, alias.value));
            self.aliases.insert(key, (alias.key.to_owned(), alias.instance));
        }
        self.folded_timers(folded);
        for (kind, key) in &folded.adopt {
            self.adopt(&(kind.to_string(), key.to_string()));
        }
        for row in &folded.parked {
            let saga = row.saga.map(|(kind, key)| (kind.to_string(), key.to_owned()));
            let known = row.ask && saga.as_ref().is_some_and(|saga| before.exists(saga));
            self.parked.push(Parked {
                message: row.message.headers.message_id,
                saga,
                blocked_key: row.blocked_key.map(str::to_owned),
                delay: if known { Duration::ZERO } else { row.delay },
            });
        }
        for row in &folded.retries {
            let key = row.key.map(str::to_owned);
            self.retries.push((row.message.headers.message_id, key, row.attempts, row.delay));
        }
        for row in &folded.dead_letters {
            self.dead_letters.push((row.message.headers.message_id, row.attempts, row.reason.to_string()));
        }
        self.sends.extend(folded.sends.iter().map(|send| (send.outgoing.message.headers.message_id, send.fresh_id)));
    }

    fn folded_timers(&mut self, folded: &FoldedBatch<'_>) {
        for (kind, key, TimerId(id)) in &folded.cancels {
            let saga = (kind.to_string(), (*key).to_owned());
            self.timers.retain(|other, timer| !(*other == id.as_u128() && timer.saga.0 == saga));
        }
        for (kind, key, instance, message_type) in &folded.cancel_types {
            let saga = ((kind.to_string(), (*key).to_owned()), *instance);
            self.timers.retain(|_, timer| !(timer.saga == saga && timer.message_type == *message_type));
        }
        for timer in &folded.timers {
            let saga = timer.message.headers.saga.as_ref().expect("a timer's saga");
            let saga = ((saga.kind.clone(), saga.key.clone()), saga.instance);
            let message_type = timer.message.headers.message_type.clone();
            self.timers.insert(timer.id.0.as_u128(), Timer { saga, message_type, due: timer.due });
        }
    }
}

/// A statement over many rows changes each row once.
fn assert_rows_are_distinct(folded: &FoldedBatch<'_>) {
    let chains: BTreeSet<_> = folded.chains.iter().map(|chain| (chain.kind, chain.key)).collect();
    let timers: BTreeSet<_> = folded.timers.iter().map(|timer| timer.id.0).collect();
    let aliases: BTreeSet<_> = folded.aliases.iter().map(|alias| (alias.kind, alias.name, alias.value)).collect();
    assert_eq!(
        (chains.len(), timers.len(), aliases.len()),
        (folded.chains.len(), folded.timers.len(), folded.aliases.len())
    );
}
