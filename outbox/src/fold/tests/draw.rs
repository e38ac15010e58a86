//! Random tables, and random batches that apply to them.

use super::tables::{Parked, Saga, Tables, Timer};
use sagabus_core::{
    Destination, Disposition, Due, Envelope, Gate, Headers, InstanceId, Intent, MessageId, Outgoing, ParkedUntil,
    RowGate, RowTable, Runtime, SagaAddress, SagaChange, SagaWrite, TimerChange, TimerId, Timestamp, UnitOfWork,
    alias_key,
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const KIND: &str = "shop/order";
const KEYS: [&str; 5] = ["k0", "k1", "k2", "s0", "s1"];
/// Keys whose sagas do not complete. Only they take aliases from each other: a batch in which a saga takes an alias and
/// ends leaves that alias with the saga that had it before, while the units one by one delete it.
const STAYING: [&str; 2] = ["s0", "s1"];
/// Stays parked for this time at most.
const AT_MOST: Duration = Duration::from_secs(60);

/// A source of random units.
pub(super) struct Draw {
    runtime: Runtime,
    next: u128,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { runtime: Runtime::manual(seed), next: 1_000 }
    }

    fn below(&self, bound: u64) -> u64 {
        self.runtime.random() % bound
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }

    fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    /// A value for the alias `a`.
    fn alias_of(&self, key: &'static str) -> &'static str {
        if STAYING.contains(&key) { self.pick(&["v0", "v1"]) } else { key }
    }

    fn message(&mut self) -> Envelope {
        let id = MessageId(self.id());
        Envelope::new(Headers::new(id, "text", Intent::Event, Timestamp(0)), "body")
    }

    /// Some sagas, running or kept, with aliases, timers and parked messages.
    pub(super) fn tables(&mut self) -> Tables {
        let mut tables = Tables::default();
        for key in KEYS {
            let saga = (KIND.to_owned(), key.to_owned());
            if self.one_in(2) {
                let (instance, version) = (InstanceId(self.id()), 1 + self.below(5) as i64);
                let kept = self.one_in(4).then_some(AT_MOST);
                let row = Saga { instance, version, state: b"before".to_vec(), schema: 1, kept };
                tables.sagas.insert(saga.clone(), row);
                if kept.is_none() {
                    let name = alias_key("a", self.alias_of(key));
                    tables.aliases.insert((KIND.to_owned(), name), (key.to_owned(), instance));
                    for number in 0..self.below(3) {
                        let (id, message_type) = timer_of(instance, number);
                        let due = Due::At(Timestamp(1));
                        tables
                            .timers
                            .insert(id.0.as_u128(), Timer { saga: (saga.clone(), instance), message_type, due });
                    }
                }
            }
            if self.one_in(2) {
                let (message, saga) = (MessageId(self.id()), Some(saga));
                tables.parked.push(Parked { message, saga, blocked_key: None, delay: AT_MOST });
            }
        }
        tables
    }

    /// Units that apply one after another, and the tables after them. The rows that are their gates are added to `tables`.
    pub(super) fn units(&mut self, tables: &mut Tables) -> (Vec<UnitOfWork>, Tables) {
        let mut units = Vec::new();
        let mut after = tables.clone();
        for _ in 0..1 + self.below(12) {
            let unit = self.unit(&after);
            let attempt = (unit.handler.to_string(), unit.message_id.0.as_u128());
            for tables in [&mut *tables, &mut after] {
                if let Gate::Row(row) = unit.gate {
                    tables.rows.insert((row.table, row.id, row.token));
                }
                if unit.has_attempt_row {
                    tables.attempts.insert(attempt.clone());
                }
            }
            after.apply(&unit);
            units.push(unit);
        }
        (units, after)
    }

    fn unit(&mut self, now: &Tables) -> UnitOfWork {
        let id = MessageId(self.id());
        let gate = match self.below(3) {
            0 => Gate::None,
            1 => Gate::Inbox,
            _ => Gate::Row(RowGate {
                table: self.pick(&[RowTable::Queue, RowTable::Timer, RowTable::Retry]),
                id: i64::try_from(self.next).unwrap(),
                token: self.below(3) as i64,
            }),
        };
        let mut unit = UnitOfWork::new(self.pick(&["order", "stock"]).into(), id, gate);
        (unit.has_attempt_row, unit.fresh_ids) = (self.one_in(4), self.one_in(2));
        if self.one_in(3) {
            unit.disposition = self.disposition();
        } else {
            self.write(&mut unit, now);
        }
        for _ in 0..self.below(3) {
            unit.sends.push(Outgoing { to: Destination::Queue("q".into()), message: self.message() });
        }
        unit
    }

    fn disposition(&mut self) -> Disposition {
        let (message, attempts) = (Arc::new(self.message()), self.below(5) as u32);
        let until = match self.below(5) {
            0 => {
                let (key, delay) = (self.one_in(2).then(|| "k".to_owned()), Duration::from_secs(self.below(9)));
                return Disposition::Deferred { message, key, attempts, delay, reason: "busy".into() };
            }
            1 => {
                let detail = vec!["why".to_owned()];
                return Disposition::DeadLettered { message, attempts, reason: "failed".into(), detail };
            }
            2 => ParkedUntil::KeyUnblocked { key: self.pick(&KEYS).to_owned() },
            3 => ParkedUntil::Saga { kind: KIND.into(), key: self.pick(&KEYS).to_owned(), at_most: AT_MOST },
            _ => ParkedUntil::Saga { kind: KIND.into(), key: alias_key("p", self.pick(&STAYING)), at_most: AT_MOST },
        };
        Disposition::Parked { message, attempts, until }
    }

    /// A saga's write that fits, and changes to its timers.
    fn write(&mut self, unit: &mut UnitOfWork, now: &Tables) {
        let key = self.pick(&KEYS);
        let live = now.sagas.get(&(KIND.to_owned(), key.to_owned())).filter(|saga| saga.kept.is_none());
        let state = format!("state {}", self.next);
        let keep = self.one_in(2).then(|| (AT_MOST, "kept".into()));
        let change = match live {
            Some(saga) if !STAYING.contains(&key) && self.one_in(3) => {
                SagaChange::Complete { instance: saga.instance, version: saga.version, keep }
            }
            Some(saga) => {
                let (instance, version, schema) = (saga.instance, saga.version, 2);
                SagaChange::Update { instance, version, state: state.into(), schema }
            }
            None if !STAYING.contains(&key) && self.one_in(4) => {
                SagaChange::Complete { instance: InstanceId(self.id()), version: 0, keep }
            }
            None => {
                let instance = InstanceId(self.id());
                SagaChange::Create { instance, state: state.into(), schema: 1, origin: None }
            }
        };
        let instance = match &change {
            SagaChange::Create { instance, .. }
            | SagaChange::Update { instance, .. }
            | SagaChange::Complete { instance, .. } => *instance,
        };
        let mut aliases = Vec::new();
        if !matches!(change, SagaChange::Complete { .. }) {
            if self.one_in(2) {
                aliases.push(("a".to_owned(), self.alias_of(key).to_owned()));
            }
            if self.one_in(3) {
                aliases.push(("p".to_owned(), key.to_owned()));
            }
        }
        unit.saga = Some(SagaWrite { kind: KIND.into(), key: key.into(), change, aliases });
        for _ in 0..self.below(3) {
            let change = self.timer(key, instance);
            unit.timers.push(change);
        }
    }

    fn timer(&mut self, key: &str, instance: InstanceId) -> TimerChange {
        let (id, message_type) = timer_of(instance, self.below(3));
        match self.below(4) {
            0 => TimerChange::Cancel { kind: KIND.into(), key: key.into(), id },
            1 => TimerChange::CancelType { kind: KIND.into(), key: key.into(), instance, message_type },
            _ => {
                let mut message = self.message();
                message.headers.message_type = message_type;
                message.headers.saga = Some(SagaAddress { kind: KIND.into(), key: key.into(), instance });
                let due = Due::After(Duration::from_secs(self.below(9)));
                TimerChange::Set { id, due, message: Box::new(message) }
            }
        }
    }
}

/// A timer of an instance: its id and its message's type.
fn timer_of(instance: InstanceId, number: u64) -> (TimerId, String) {
    let id = Uuid::from_u128(instance.0.as_u128() * 1_000_000 + u128::from(number));
    (TimerId(id), format!("timeout {}", number % 2))
}
