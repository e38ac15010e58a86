//! A batch's units, folded: a pure function of them.

use super::{
    super::{dedup_partitions::DedupSlot, sql::micros},
    chain::{Chain, End, Refused},
};
use sagabus_core::{
    CommitBatch, Disposition, Due, Envelope, Fence, Gate, InstanceId, MessageId, Outgoing, ParkedUntil, RowTable,
    SagaChange, SagaWrite, TimerChange, TimerId, UnitOfWork, alias_key, shard_of,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// The folded batch.
#[derive(Default)]
pub(super) struct FoldedBatch<'b> {
    /// The units that are in it, by their index in the batch.
    pub(super) units: Vec<usize>,
    pub(super) fences: Vec<&'b Fence>,
    pub(super) inbox: Vec<(DedupSlot, &'b Arc<str>, MessageId)>,
    /// (id, token) by table.
    pub(super) rows: BTreeMap<RowTable, Vec<(i64, i64)>>,
    pub(super) chains: Vec<Chain<'b>>,
    pub(super) chain_of: HashMap<(&'b str, &'b str), usize>,
    pub(super) aliases: Vec<Alias<'b>>,
    /// Under which (kind, key) messages may be parked that are due now.
    pub(super) adopt: Vec<(&'b Arc<str>, String)>,
    /// Instances that have ended.
    pub(super) ended: Vec<(&'b Arc<str>, &'b str, InstanceId)>,
    pub(super) timers: Vec<NewTimer<'b>>,
    pub(super) set: HashSet<TimerId>,
    pub(super) cancels: Vec<(&'b Arc<str>, &'b str, TimerId)>,
    pub(super) cancel_types: Vec<(&'b Arc<str>, &'b str, InstanceId, &'b str)>,
    pub(super) retries: Vec<RetryRow<'b>>,
    pub(super) dead_letters: Vec<DeadLetterRow<'b>>,
    pub(super) parked: Vec<ParkedRow<'b>>,
    /// (handler, id) of the attempt rows to delete.
    pub(super) attempt_rows: Vec<(&'b Arc<str>, MessageId)>,
    pub(super) sends: Vec<Sending<'b>>,
}

/// A message that leaves.
pub(super) struct Sending<'b> {
    pub(super) outgoing: &'b Outgoing,
    /// See [`UnitOfWork::fresh_ids`].
    pub(super) fresh_id: bool,
}

/// A further correlation value.
pub(super) struct Alias<'b> {
    pub(super) kind: &'b Arc<str>,
    pub(super) key: &'b str,
    pub(super) instance: InstanceId,
    pub(super) name: &'b str,
    pub(super) value: &'b str,
}

/// A timer to insert.
pub(super) struct NewTimer<'b> {
    pub(super) handler: &'b Arc<str>,
    pub(super) id: TimerId,
    pub(super) due: Due,
    pub(super) message: &'b Envelope,
}

/// A row of `retry`.
pub(super) struct RetryRow<'b> {
    pub(super) handler: &'b str,
    pub(super) message: &'b Envelope,
    pub(super) key: Option<&'b str>,
    pub(super) attempts: u32,
    pub(super) delay: i64,
    pub(super) reason: &'b str,
}

/// A row of `dead_letter`.
pub(super) struct DeadLetterRow<'b> {
    pub(super) handler: &'b str,
    pub(super) message: &'b Envelope,
    pub(super) attempts: u32,
    pub(super) reason: String,
    pub(super) detail: Vec<String>,
}

/// A row of `parked`.
pub(super) struct ParkedRow<'b> {
    pub(super) handler: &'b str,
    pub(super) message: &'b Envelope,
    pub(super) attempts: u32,
    pub(super) blocked_key: Option<&'b str>,
    pub(super) saga: Option<(&'b Arc<str>, &'b str)>,
    /// How long after now it is due; 0 for one whose saga this batch brings.
    pub(super) delay: i64,
    /// The saga may have come already: the database knows.
    pub(super) ask: bool,
}

/// How folding ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// With the units that the plan names: all of them, or all before one that begins another instance of a saga.
    Well,
    /// A chain does not build on itself.
    Broken,
}

impl<'b> FoldedBatch<'b> {
    /// Folds units, given by their indices; `slots` says where their ids are remembered.
    pub(super) fn fold(
        &mut self,
        batch: &'b CommitBatch,
        units: &[usize],
        slots: &HashMap<usize, DedupSlot>,
    ) -> Folded {
        for index in units {
            let Some(unit) = batch.units.get(*index) else { continue };
            if let Some(write) = &unit.saga {
                match self.saga(write) {
                    Ok(()) => {}
                    Err(Refused::Cut) => return Folded::Well,
                    Err(Refused::Broken) => return Folded::Broken,
                }
            }
            self.unit(*index, unit, slots);
        }
        Folded::Well
    }

    fn unit(&mut self, index: usize, unit: &'b UnitOfWork, slots: &HashMap<usize, DedupSlot>) {
        self.units.push(index);
        match &unit.gate {
            Gate::None => {}
            Gate::Row(row) => self.rows.entry(row.table).or_default().push((row.id, row.token)),
            Gate::Inbox => {
                let slot = slots.get(&index).copied().unwrap_or(DedupSlot { day: None, misc: true });
                self.inbox.push((slot, &unit.handler, unit.message_id));
            }
        }
        if let Some(fence) = &unit.fence
            && !self.fences.contains(&fence)
        {
            self.fences.push(fence);
        }
        for change in &unit.timers {
            self.timer(&unit.handler, change);
        }
        // after its timers: a saga's end takes those of its last unit too
        if let Some(SagaWrite { kind, key, change: SagaChange::Complete { instance, .. }, .. }) = &unit.saga {
            self.timers.retain(|timer| !timer.is_of(kind, key, Some(*instance)));
        }
        if unit.has_attempt_row {
            self.attempt_rows.push((&unit.handler, unit.message_id));
        }
        self.dispose(&unit.handler, &unit.disposition);
        self.sends.extend(unit.sends.iter().map(|outgoing| Sending { outgoing, fresh_id: unit.fresh_ids }));
    }

    /// Cancels reach back into the batch: a timer that an earlier unit of it sets is not set at all.
    fn timer(&mut self, handler: &'b Arc<str>, change: &'b TimerChange) {
        match change {
            TimerChange::Set { id, due, message } => {
                if !self.set.insert(*id) {
                    self.timers.retain(|timer| timer.id != *id);
                }
                self.timers.push(NewTimer { handler, id: *id, due: *due, message });
            }
            TimerChange::Cancel { kind, key, id } => {
                self.timers.retain(|timer| !(timer.id == *id && timer.is_of(kind, key, None)));
                self.cancels.push((kind, key, *id));
            }
            TimerChange::CancelType { kind, key, instance, message_type } => {
                self.timers.retain(|timer| {
                    !(timer.message.headers.message_type == *message_type && timer.is_of(kind, key, Some(*instance)))
                });
                self.cancel_types.push((kind, key, *instance, message_type));
            }
        }
    }

    fn saga(&mut self, write: &'b SagaWrite) -> Result<(), Refused> {
        let next = self.chains.len();
        let slot = *self.chain_of.entry((&write.kind, &write.key)).or_insert(next);
        match self.chains.get_mut(slot) {
            Some(chain) => chain.push(write)?,
            None => self.chains.push(Chain::new(write)),
        }
        let (kind, key) = (&write.kind, write.key.as_str());
        match &write.change {
            SagaChange::Create { .. } => self.adopt(kind, write.key.clone()),
            SagaChange::Update { .. } => {}
            SagaChange::Complete { instance, .. } => {
                self.aliases.retain(|alias| !(alias.kind == kind && alias.key == key));
                self.ended.push((kind, key, *instance));
                return Ok(());
            }
        }
        let instance = self.chains.get(slot).map_or(InstanceId(uuid::Uuid::nil()), |chain| chain.instance);
        for (name, value) in &write.aliases {
            self.adopt(kind, alias_key(name, value));
            self.aliases.retain(|alias| !(alias.kind == kind && alias.name == name && alias.value == value));
            self.aliases.push(Alias { kind, key, instance, name, value });
        }
        Ok(())
    }

    fn adopt(&mut self, kind: &'b Arc<str>, key: String) {
        for parked in &mut self.parked {
            if parked.saga.is_some_and(|(k, v)| k == kind && v == key) {
                (parked.delay, parked.ask) = (0, false);
            }
        }
        self.adopt.push((kind, key));
    }

    /// Whether a saga, by key or by alias, is there after what was folded so far; None if the database knows.
    fn arrived(&self, kind: &str, key: &str) -> Option<bool> {
        if let Some(chain) = self.chain_of.get(&(kind, key)).and_then(|slot| self.chains.get(*slot)) {
            return Some(chain.end == End::Live);
        }
        let named = |alias: &&Alias<'_>| **alias.kind == *kind && alias_key(alias.name, alias.value) == key;
        self.aliases.iter().find(named).map(|_| true)
    }

    fn dispose(&mut self, handler: &'b Arc<str>, disposition: &'b Disposition) {
        match disposition {
            Disposition::Handled | Disposition::Dropped { .. } => {}
            Disposition::Deferred { message, key, attempts, delay, reason } => self.retries.push(RetryRow {
                handler,
                message,
                key: key.as_deref(),
                attempts: *attempts,
                delay: micros(*delay),
                reason,
            }),
            Disposition::DeadLettered { message, attempts, reason, detail } => self.dead_letters.push(DeadLetterRow {
                handler,
                message,
                attempts: *attempts,
                reason: reason.clone(),
                detail: detail.clone(),
            }),
            Disposition::Parked { message, attempts, until } => {
                let attempts = *attempts;
                let parked = match until {
                    ParkedUntil::Saga { kind, key, at_most } => {
                        let arrived = self.arrived(kind, key);
                        let delay = if arrived == Some(true) { 0 } else { micros(*at_most) };
                        let (saga, ask) = (Some((kind, key.as_str())), arrived.is_none());
                        ParkedRow { handler, message, attempts, blocked_key: None, saga, delay, ask }
                    }
                    ParkedUntil::KeyUnblocked { key } => ParkedRow {
                        handler,
                        message,
                        attempts,
                        blocked_key: Some(key),
                        saga: None,
                        delay: 0,
                        ask: false,
                    },
                };
                self.parked.push(parked);
            }
        }
    }
}

impl NewTimer<'_> {
    fn is_of(&self, kind: &str, key: &str, instance: Option<InstanceId>) -> bool {
        let same = |saga: &sagabus_core::SagaAddress| {
            saga.kind == kind && saga.key == key && instance.is_none_or(|instance| saga.instance == instance)
        };
        self.message.headers.saga.as_ref().is_some_and(same)
    }
}

/// The shard of a row of the due tables: of its order key, or of its saga's key, or of its message.
pub(crate) fn shard_of_row(key: Option<&str>, message: &Envelope) -> u16 {
    let headers = &message.headers;
    let key = key.or(headers.order_key.as_deref()).or(headers.saga.as_ref().map(|saga| saga.key.as_str()));
    match key {
        Some(key) => shard_of(key.as_bytes()),
        None => shard_of(headers.message_id.0.as_bytes()),
    }
}

/// The shard of a queue's row: of its order key, or of its message.
pub(crate) fn shard_of_queued(message: &Envelope) -> i16 {
    let headers = &message.headers;
    let shard = match &headers.order_key {
        Some(key) => shard_of(key.as_bytes()),
        None => shard_of(headers.message_id.0.as_bytes()),
    };
    i16::try_from(shard).unwrap_or(0)
}
