//! A batch's units, folded.

use super::{
    chain::{Chain, End, Refused},
    rows::{Alias, DeadLetterRow, FoldedSend, NewTimer, ParkedRow, RetryRow},
};
use crate::dedup::DedupSlot;
use sagabus_core::{
    CommitBatch, Disposition, Fence, Gate, InstanceId, MessageId, ParkedUntil, RowTable, SagaChange, SagaWrite,
    TimerChange, TimerId, UnitOfWork, alias_key,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// The changes of a batch's units, as rows of tables.
#[derive(Default)]
pub(crate) struct FoldedBatch<'b> {
    /// The units that are in it, by their index in the batch: all that were given, or those before one that begins another
    /// instance of a saga.
    pub(crate) units: Vec<usize>,
    pub(crate) fences: Vec<&'b Fence>,
    /// (slot, handler, id) of the inbox rows that are gates.
    pub(crate) inbox: Vec<(DedupSlot, &'b Arc<str>, MessageId)>,
    /// (id, token) of the rows that are gates, by table.
    pub(crate) rows: BTreeMap<RowTable, Vec<(i64, i64)>>,
    pub(crate) chains: Vec<Chain<'b>>,
    pub(crate) aliases: Vec<Alias<'b>>,
    /// The (kind, key) under which parked messages become due, even if the saga or its alias ends in this batch.
    pub(crate) adopt: Vec<(&'b Arc<str>, Cow<'b, str>)>,
    /// Instances that have ended.
    pub(crate) ended: Vec<(&'b Arc<str>, &'b str, InstanceId)>,
    pub(crate) timers: Vec<NewTimer<'b>>,
    pub(crate) cancels: Vec<(&'b Arc<str>, &'b str, TimerId)>,
    pub(crate) cancel_types: Vec<(&'b Arc<str>, &'b str, InstanceId, &'b str)>,
    pub(crate) retries: Vec<RetryRow<'b>>,
    pub(crate) dead_letters: Vec<DeadLetterRow<'b>>,
    pub(crate) parked: Vec<ParkedRow<'b>>,
    /// (handler, id) of the attempt rows to delete.
    pub(crate) attempt_rows: Vec<(&'b Arc<str>, MessageId)>,
    pub(crate) sends: Vec<FoldedSend<'b>>,
}

/// A saga's writes in a batch do not build on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Folds units, given by their indices. `slot` is where a unit's inbox row lies.
pub(crate) fn fold<'b>(
    batch: &'b CommitBatch,
    units: &[usize],
    slot: impl Fn(usize, &UnitOfWork) -> DedupSlot,
) -> Result<FoldedBatch<'b>, Broken> {
    let mut folder = Folder::default();
    for index in units {
        let Some(unit) = batch.units.get(*index) else { continue };
        if let Some(write) = &unit.saga {
            match folder.saga(write) {
                Ok(()) => {}
                Err(Refused::Cut) => break,
                Err(Refused::Broken) => return Err(Broken),
            }
        }
        folder.unit(*index, unit, &slot);
    }
    Ok(folder.folded)
}

/// A fold under way.
#[derive(Default)]
struct Folder<'b> {
    folded: FoldedBatch<'b>,
    /// The chain of a (kind, key).
    chain_of: HashMap<(&'b str, &'b str), usize>,
    timer_ids: HashSet<TimerId>,
}

impl<'b> Folder<'b> {
    fn unit(&mut self, index: usize, unit: &'b UnitOfWork, slot: impl Fn(usize, &UnitOfWork) -> DedupSlot) {
        self.folded.units.push(index);
        match &unit.gate {
            Gate::None => {}
            Gate::Row(row) => self.folded.rows.entry(row.table).or_default().push((row.id, row.token)),
            Gate::Inbox => self.folded.inbox.push((slot(index, unit), &unit.handler, unit.message_id)),
        }
        if let Some(fence) = &unit.fence
            && !self.folded.fences.contains(&fence)
        {
            self.folded.fences.push(fence);
        }
        for change in &unit.timers {
            self.timer(&unit.handler, change);
        }
        // after its timers: a saga's end takes those of its last unit too
        if let Some(SagaWrite { kind, key, change: SagaChange::Complete { instance, .. }, .. }) = &unit.saga {
            self.folded.timers.retain(|timer| !timer.is_of(kind, key, Some(*instance)));
        }
        if unit.has_attempt_row {
            self.folded.attempt_rows.push((&unit.handler, unit.message_id));
        }
        self.dispose(&unit.handler, &unit.disposition);
        let sends = unit.sends.iter();
        self.folded.sends.extend(sends.map(|outgoing| FoldedSend { unit: index, outgoing, fresh_id: unit.fresh_ids }));
    }

    /// Cancels reach back into the batch: a timer that an earlier unit of it sets is not set at all.
    fn timer(&mut self, handler: &'b Arc<str>, change: &'b TimerChange) {
        match change {
            TimerChange::Set { id, due, message } => {
                if !self.timer_ids.insert(*id) {
                    self.folded.timers.retain(|timer| timer.id != *id);
                }
                self.folded.timers.push(NewTimer { handler, id: *id, due: *due, message });
            }
            TimerChange::Cancel { kind, key, id } => {
                self.folded.timers.retain(|timer| !(timer.id == *id && timer.is_of(kind, key, None)));
                self.folded.cancels.push((kind, key, *id));
            }
            TimerChange::CancelType { kind, key, instance, message_type } => {
                self.folded.timers.retain(|timer| {
                    !(timer.message.headers.message_type == *message_type && timer.is_of(kind, key, Some(*instance)))
                });
                self.folded.cancel_types.push((kind, key, *instance, message_type));
            }
        }
    }

    fn saga(&mut self, write: &'b SagaWrite) -> Result<(), Refused> {
        let next = self.folded.chains.len();
        let slot = *self.chain_of.entry((&write.kind, &write.key)).or_insert(next);
        match self.folded.chains.get_mut(slot) {
            Some(chain) => chain.push(write)?,
            None => self.folded.chains.push(Chain::new(write)),
        }
        let (kind, key) = (&write.kind, write.key.as_str());
        match &write.change {
            SagaChange::Create { .. } => self.adopt(kind, Cow::Borrowed(key)),
            SagaChange::Update { .. } => {}
            SagaChange::Complete { instance, .. } => {
                self.folded.aliases.retain(|alias| !(alias.kind == kind && alias.key == key));
                self.folded.ended.push((kind, key, *instance));
                return Ok(());
            }
        }
        let instance = self.folded.chains.get(slot).map_or(InstanceId(uuid::Uuid::nil()), |chain| chain.instance);
        for (name, value) in &write.aliases {
            self.adopt(kind, Cow::Owned(alias_key(name, value)));
            self.folded.aliases.retain(|alias| !(alias.kind == kind && alias.name == name && alias.value == value));
            self.folded.aliases.push(Alias { kind, key, instance, name, value });
        }
        Ok(())
    }

    /// Makes the messages due that are parked for a saga's key or alias.
    fn adopt(&mut self, kind: &'b Arc<str>, key: Cow<'b, str>) {
        for parked in &mut self.folded.parked {
            if parked.saga.is_some_and(|(k, v)| k == kind && v == key) {
                (parked.delay, parked.ask) = (Duration::ZERO, false);
            }
        }
        self.folded.adopt.push((kind, key));
    }

    /// Whether a saga, by key or by alias, exists after what was folded so far; none if only the database knows.
    fn exists(&self, kind: &str, key: &str) -> Option<bool> {
        if let Some(chain) = self.chain_of.get(&(kind, key)).and_then(|slot| self.folded.chains.get(*slot)) {
            return Some(chain.end == End::Live);
        }
        let named = |alias: &&Alias<'_>| **alias.kind == *kind && alias_key(alias.name, alias.value) == key;
        self.folded.aliases.iter().find(named).map(|_| true)
    }

    fn dispose(&mut self, handler: &'b Arc<str>, disposition: &'b Disposition) {
        match disposition {
            Disposition::Handled | Disposition::Dropped { .. } => {}
            Disposition::Deferred { message, key, attempts, delay, reason } => self.folded.retries.push(RetryRow {
                handler,
                message,
                key: key.as_deref(),
                attempts: *attempts,
                delay: *delay,
                reason,
            }),
            Disposition::DeadLettered { message, attempts, reason, detail } => {
                self.folded.dead_letters.push(DeadLetterRow {
                    handler,
                    message,
                    attempts: *attempts,
                    reason: Cow::Borrowed(reason),
                    detail: Cow::Borrowed(detail),
                })
            }
            Disposition::Parked { message, attempts, until } => {
                let (blocked_key, saga, delay, ask) = match until {
                    ParkedUntil::Saga { kind, key, at_most } => {
                        let exists = self.exists(kind, key);
                        let delay = if exists == Some(true) { Duration::ZERO } else { *at_most };
                        (None, Some((kind, key.as_str())), delay, exists.is_none())
                    }
                    ParkedUntil::KeyUnblocked { key } => (Some(key.as_str()), None, Duration::ZERO, false),
                };
                self.folded.parked.push(ParkedRow {
                    handler,
                    message,
                    attempts: *attempts,
                    blocked_key,
                    saga,
                    delay,
                    ask,
                });
            }
        }
    }
}
