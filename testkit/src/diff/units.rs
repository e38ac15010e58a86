//! Random units of work: mostly such as an endpoint would commit, some that come too late or twice.

use super::{ALIASES, HANDLERS, KEYS, KINDS, draw::Draw, kind, op::Planned, store_under_test::StoreUnderTest};
use sagabus_core::{
    Disposition, Due, Envelope, Gate, InstanceId, LoadRequest, MessageId, ParkedUntil, RowTable, SagaAddress,
    SagaChange, SagaWrite, TimerChange, TimerId, Timestamp, UnitOfWork, alias_key,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

const DAY: Duration = Duration::from_secs(86_400);

/// What the earlier units of a batch have taken, and what they will have made of the sagas.
#[derive(Default)]
pub(super) struct Batch {
    rows: HashSet<usize>,
    inbox: HashSet<(Arc<str>, MessageId)>,
    sagas: HashMap<(String, &'static str), Life>,
    /// (handler, order key) of which a message was retried or had its turn.
    lines: HashSet<(Arc<str>, String)>,
    /// Whether timers were set, cancelled or ended, and whether parked messages were made due. In SQL stores, which open all
    /// gates of a batch before its effects, that reaches a row which is a later unit's gate only from the next batch on.
    timers: bool,
    adopted: bool,
    /// Whether a message was parked for a saga. If that ends in the same batch, the message may be due at once or wait.
    parked: bool,
    /// Whether a saga has ended. A message that is parked for one of its aliases may be due at once then, or wait.
    ended: bool,
}

#[derive(Clone, Copy)]
enum Life {
    None,
    Live(InstanceId, i64),
    Kept(InstanceId, i64),
    /// Completed within the batch: nothing may follow.
    Over,
}

impl Draw {
    /// A unit whose gate nobody else in the batch has; none if what was drawn is taken.
    pub(super) async fn unit(
        &mut self,
        tested: &StoreUnderTest,
        batch: &mut Batch,
        endpoint: &Arc<str>,
    ) -> Option<Planned> {
        let row = match self.rng.index(100) {
            0..33 => self.pool_row(tested, endpoint),
            33..37 => self.old_row(tested, endpoint),
            _ => None,
        };
        let reached = row.is_some_and(|row| match tested.gates.name(row).table {
            RowTable::Timer => batch.timers,
            RowTable::Parked => batch.adopted,
            _ => false,
        });
        if reached || row.is_some_and(|row| !batch.rows.insert(row)) {
            return None;
        }
        let (mut handler, message) = match row {
            Some(row) => (tested.readings[row].handler.clone(), tested.readings[row].message.clone()),
            None => (self.rng.choose(&HANDLERS).into(), self.messages.any(&mut self.rng, 15)),
        };
        if handler.is_empty() {
            handler = self.rng.choose(&HANDLERS).into();
        }
        let id = message.headers.message_id;
        let gate = if row.is_none() && self.rng.percent(3) { Gate::None } else { Gate::Inbox };
        if row.is_none() && gate == Gate::Inbox && !batch.inbox.insert((handler.clone(), id)) {
            return None;
        }
        let mut unit = UnitOfWork::new(handler, id, gate);
        if gate == Gate::None {
            unit.sends = self.sends(2, false);
            return Some(Planned { unit, row, fence: None });
        }
        let line = row.and_then(|row| tested.readings[row].key.clone());
        if line.as_ref().is_some_and(|line| !batch.lines.insert((unit.handler.clone(), line.clone()))) {
            return None;
        }
        unit.disposition = self.disposition(endpoint, &message, line.clone());
        if let Disposition::Deferred { key: Some(key), .. } = &unit.disposition
            && line.is_none()
            && !self.is_free(tested, batch, endpoint, &unit.handler, key).await
        {
            return None;
        }
        if let Disposition::Parked { until: ParkedUntil::Saga { key, .. }, .. } = &unit.disposition
            && batch.ended
            && key.contains('=')
        {
            return None;
        }
        batch.parked |= matches!(unit.disposition, Disposition::Parked { until: ParkedUntil::Saga { .. }, .. });
        unit.has_attempt_row = self.rng.percent(20);
        let handled = matches!(unit.disposition, Disposition::Handled);
        if handled && self.rng.percent(55) {
            unit.saga = self.saga(tested, batch, endpoint).await;
        }
        if self.rng.percent(if handled { 35 } else { 5 }) {
            unit.fresh_ids = self.rng.percent(50);
            unit.sends = self.sends(4, unit.fresh_ids);
        }
        if handled && self.rng.percent(25) {
            unit.timers = self.timers(endpoint, unit.saga.as_ref());
        }
        let ends = |write: &SagaWrite| matches!(write.change, SagaChange::Complete { .. });
        batch.ended |= unit.saga.as_ref().is_some_and(ends);
        batch.timers |= !unit.timers.is_empty() || unit.saga.as_ref().is_some_and(ends);
        let brings = |write: &SagaWrite| matches!(write.change, SagaChange::Create { .. }) || !write.aliases.is_empty();
        batch.adopted |= unit.saga.as_ref().is_some_and(brings);
        let fence = if self.rng.percent(8) { self.fence(tested) } else { None };
        Some(Planned { unit, row, fence })
    }

    /// Whether a message of this order key may be retried: one that has to wait for its turn is parked, never tried.
    async fn is_free(
        &self,
        tested: &StoreUnderTest,
        batch: &mut Batch,
        endpoint: &Arc<str>,
        handler: &Arc<str>,
        key: &str,
    ) -> bool {
        let line = (handler.clone(), key.to_owned());
        let request =
            LoadRequest { endpoint: endpoint.clone(), blocked_keys: vec![line.clone()], ..LoadRequest::default() };
        let blocked = tested.store.load(request).await.is_ok_and(|reply| reply.blocked_keys == [true]);
        batch.lines.insert(line) && !blocked
    }

    fn sends(&mut self, most: usize, fresh_ids: bool) -> Vec<sagabus_core::Outgoing> {
        (0..1 + self.rng.index(most)).map(|_| self.messages.outgoing(&mut self.rng, fresh_ids)).collect()
    }

    fn disposition(&mut self, endpoint: &str, message: &Arc<Envelope>, line: Option<String>) -> Disposition {
        let (message, attempts) = (message.clone(), u32::try_from(self.rng.index(5)).unwrap_or(0));
        let key = line.or_else(|| message.headers.order_key.clone());
        match self.rng.index(100) {
            0..8 => {
                let far = self.rng.percent(6);
                let delay = if far { DAY * 3 } else { Duration::ZERO };
                let key = key.filter(|_| self.rng.percent(70));
                Disposition::Deferred { message, key, attempts, delay, reason: "later \u{0}".into() }
            }
            8..14 => {
                let detail = (0..self.rng.index(3)).map(|n| format!("cause {n} \u{0}\"")).collect();
                Disposition::DeadLettered { message, attempts, reason: self.rng.choose(&KEYS).into(), detail }
            }
            14..23 => {
                let (saga, key) = (self.rng.choose(&KINDS), self.rng.choose(&KEYS));
                let alias = self.rng.percent(20);
                let key = if alias { alias_key(self.rng.choose(&ALIASES), key) } else { key.into() };
                let at_most = self.rng.choose(&[Duration::ZERO, DAY * 2, DAY * 4]);
                let until = ParkedUntil::Saga { kind: kind(endpoint, saga).into(), key, at_most };
                Disposition::Parked { message, attempts, until }
            }
            23..29 => {
                let key = key.unwrap_or_else(|| self.messages.order_key(&mut self.rng));
                Disposition::Parked { message, attempts, until: ParkedUntil::KeyUnblocked { key } }
            }
            29..31 => Disposition::Dropped { policy: "expired" },
            _ => Disposition::Handled,
        }
    }

    async fn saga(&mut self, tested: &StoreUnderTest, batch: &mut Batch, endpoint: &str) -> Option<SagaWrite> {
        // few keys at a time, so that chains come about
        let (kind, key) = (kind(endpoint, self.rng.choose(&KINDS)), self.rng.choose(&KEYS));
        let place = (kind.clone(), key);
        let life = match batch.sagas.get(&place) {
            Some(life) => *life,
            None => match tested.store.admin().saga(&kind, key).await.ok()? {
                None => Life::None,
                Some(row) if row.completed => Life::Kept(row.instance, row.version),
                Some(row) => Life::Live(row.instance, row.version),
            },
        };
        let change = self.change(life)?;
        if batch.parked && matches!(change, SagaChange::Complete { .. }) {
            return None;
        }
        let next = match &change {
            SagaChange::Create { instance, .. } => Life::Live(*instance, 1),
            SagaChange::Update { instance, version, .. } => Life::Live(*instance, version + 1),
            SagaChange::Complete { .. } => Life::Over,
        };
        batch.sagas.insert(place, next);
        let mut aliases = Vec::new();
        if self.rng.percent(15) {
            // one value never leads to two sagas
            aliases.push((self.rng.choose(&ALIASES).into(), key.into()));
        }
        Some(SagaWrite { kind: kind.into(), key: key.into(), change, aliases })
    }

    /// What an endpoint would write, mostly.
    fn change(&mut self, life: Life) -> Option<SagaChange> {
        let (state, schema) = (self.state(), 1 + u32::try_from(self.rng.index(2)).unwrap_or(0));
        let other = self.messages.instance(&mut self.rng);
        let create = SagaChange::Create {
            instance: other,
            state: state.clone(),
            schema,
            origin: self.rng.percent(20).then(|| state.clone()),
        };
        let keep = match self.rng.index(10) {
            0..3 => Some((DAY * 5, state.clone())),
            3 => Some((Duration::ZERO, state.clone())),
            _ => None,
        };
        let draw = self.rng.index(100);
        Some(match life {
            Life::Over => return None,
            Life::None if draw < 88 => create,
            Life::None if draw < 94 => SagaChange::Complete { instance: other, version: 0, keep },
            Life::None => SagaChange::Update { instance: other, version: 1, state, schema },
            Life::Live(instance, version) => match draw {
                0..4 => create,
                4..8 => SagaChange::Update { instance: other, version, state, schema },
                8..12 => SagaChange::Update { instance, version: version - 1, state, schema },
                12..14 => SagaChange::Update { instance, version: version + 1, state, schema },
                14..16 => SagaChange::Complete { instance, version: version + 1, keep },
                16..18 => SagaChange::Complete { instance: other, version: 0, keep },
                18..30 => SagaChange::Complete { instance, version, keep },
                _ => SagaChange::Update { instance, version, state, schema },
            },
            Life::Kept(instance, version) => match draw {
                0..60 => create,
                60..70 => SagaChange::Complete { instance: other, version: 0, keep },
                70..85 => SagaChange::Complete { instance, version, keep },
                _ => SagaChange::Update { instance, version, state, schema },
            },
        })
    }

    fn state(&mut self) -> bytes::Bytes {
        let size = if self.rng.percent(3) { 3000 } else { 30 };
        (0..self.rng.index(size)).map(|_| self.rng.next_u64() as u8).collect::<Vec<u8>>().into()
    }

    fn timers(&mut self, endpoint: &str, write: Option<&SagaWrite>) -> Vec<TimerChange> {
        (0..self.rng.count(3)).map(|_| self.timer(endpoint, write)).collect()
    }

    fn timer(&mut self, endpoint: &str, write: Option<&SagaWrite>) -> TimerChange {
        let (kind, key) = match write {
            Some(write) if self.rng.percent(90) => (write.kind.to_string(), write.key.clone()),
            _ => (kind(endpoint, self.rng.choose(&KINDS)), self.rng.choose(&KEYS).to_string()),
        };
        let instance = match write.map(|write| &write.change) {
            Some(
                SagaChange::Create { instance, .. }
                | SagaChange::Update { instance, .. }
                | SagaChange::Complete { instance, .. },
            ) if self.rng.percent(95) => *instance,
            _ => self.messages.instance(&mut self.rng),
        };
        let known = (!self.set.is_empty()).then(|| self.set[self.rng.index(self.set.len())].clone());
        match (self.rng.index(10), known) {
            (0, Some((id, saga))) => TimerChange::Cancel { kind: saga.kind.into(), key: saga.key, id },
            (1, Some((_, saga))) => TimerChange::CancelType {
                kind: saga.kind.into(),
                key: saga.key,
                instance: saga.instance,
                message_type: self.rng.choose(&super::TYPES).into(),
            },
            (2, _) => {
                let message_type = self.rng.choose(&super::TYPES).into();
                TimerChange::CancelType { kind: kind.into(), key, instance, message_type }
            }
            _ => {
                let id = self.messages.timer_id(&mut self.rng);
                self.set(id, SagaAddress { kind, key, instance })
            }
        }
    }

    fn set(&mut self, id: TimerId, saga: SagaAddress) -> TimerChange {
        self.remember(id, saga.clone());
        let message = self.messages.timeout(&mut self.rng, saga);
        TimerChange::Set { id, due: self.due(), message }
    }

    /// A unit that sets a timer again under its id. By itself: what a batch that also cancels should do with it, nobody has
    /// said, and nobody asks for it.
    pub(super) fn again(&mut self) -> Option<Planned> {
        let place = self.rng.index(self.set.len());
        let (id, saga) = self.set.get(place)?.clone();
        let message = self.messages.fresh(&mut self.rng);
        let mut unit = UnitOfWork::new(self.rng.choose(&HANDLERS).into(), message.headers.message_id, Gate::Inbox);
        unit.timers = vec![self.set(id, saga)];
        Some(Planned { unit, row: None, fence: None })
    }

    fn due(&mut self) -> Due {
        match self.rng.index(10) {
            0..3 => Due::After(Duration::ZERO),
            3..7 => Due::At(self.past()),
            7 => Due::At(Timestamp(4_102_444_800_000_000 + self.rng.index(1_000_000_000) as i64)),
            _ => Due::After(DAY * (1 + u32::try_from(self.rng.index(5)).unwrap_or(0))),
        }
    }

    /// Some moment that is long past. Hardly ever the same one: which of two timers for one moment comes first is for the
    /// store to say.
    pub(super) fn past(&mut self) -> Timestamp {
        Timestamp(1 + self.rng.index(1_000_000_000_000_000) as i64)
    }
}
