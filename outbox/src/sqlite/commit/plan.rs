//! What a batch's units come to, folded: a pure function of them and of the time.

use super::{
    super::{
        dedup_day::{DedupSlot, dedup_slot},
        write_context::WriteContext,
    },
    chain::{Chain, End},
};
use sagabus_core::{
    CommitBatch, Disposition, Due, Envelope, Error, Fence, Gate, InstanceId, MessageId, Outgoing, ParkedUntil,
    RowTable, SagaWrite, TimerChange, TimerId, Timestamp, UnitOfWork, alias_key, shard_of,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The folded batch.
pub(super) struct FoldedBatch<'b> {
    pub(super) endpoint: &'b Arc<str>,
    pub(super) fences: Vec<&'b Fence>,
    /// (day, handler, id)
    pub(super) inbox: Vec<(i64, &'b Arc<str>, MessageId)>,
    /// The same for ids of an unusual age.
    pub(super) inbox_misc: Vec<(Option<i64>, &'b Arc<str>, MessageId)>,
    /// (id, token) by table.
    pub(super) rows: BTreeMap<RowTable, Vec<(i64, i64)>>,
    pub(super) chains: Vec<Chain<'b>>,
    pub(super) aliases: Vec<Alias<'b>>,
    /// Under which (kind, key) messages may be parked that are due now, however short their saga or its alias lived.
    pub(super) adopt: Vec<(&'b Arc<str>, Cow<'b, str>)>,
    /// Lives that have ended.
    pub(super) ended: Vec<(&'b Arc<str>, &'b str, InstanceId)>,
    pub(super) timers: Vec<NewTimer<'b>>,
    pub(super) cancels: Vec<(&'b Arc<str>, &'b str, TimerId)>,
    pub(super) cancel_types: Vec<(&'b Arc<str>, &'b str, InstanceId, &'b str)>,
    pub(super) disposition_rows: Vec<DispositionRow<'b>>,
    /// (handler, id) whose attempt row goes.
    pub(super) counted: Vec<(&'b Arc<str>, MessageId)>,
    /// With the index of its unit in the batch.
    pub(super) sends: Vec<(usize, &'b Outgoing)>,
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
    pub(super) due: Timestamp,
    pub(super) message: &'b Envelope,
}

/// A unit whose disposition leaves a row.
pub(super) struct DispositionRow<'b> {
    pub(super) handler: &'b Arc<str>,
    pub(super) disposition: &'b Disposition,
}

/// Why there is no plan.
pub(super) enum Refused {
    /// A chain does not build on itself.
    Broken,
    /// Something else.
    Failed(Error),
}

impl<'b> FoldedBatch<'b> {
    pub(super) fn new(context: &WriteContext<'_>, batch: &'b CommitBatch, live: &[usize]) -> Result<Self, Refused> {
        let mut folded = Self {
            endpoint: &batch.owner.endpoint,
            fences: Vec::new(),
            inbox: Vec::new(),
            inbox_misc: Vec::new(),
            rows: BTreeMap::new(),
            chains: Vec::new(),
            aliases: Vec::new(),
            adopt: Vec::new(),
            ended: Vec::new(),
            timers: Vec::new(),
            cancels: Vec::new(),
            cancel_types: Vec::new(),
            disposition_rows: Vec::new(),
            counted: Vec::new(),
            sends: Vec::new(),
        };
        let mut chains: HashMap<(&str, &str), usize> = HashMap::new();
        for index in live {
            let Some(unit) = batch.units.get(*index) else {
                return Err(Refused::Failed(Error::invalid("a batch names a unit that it does not have")));
            };
            folded.gate(context, unit);
            for change in &unit.timers {
                folded.timer(context, &unit.handler, change);
            }
            if let Some(write) = &unit.saga
                && !folded.saga(&mut chains, write)
            {
                return Err(Refused::Broken);
            }
            if unit.has_attempt_row {
                folded.counted.push((&unit.handler, unit.message_id));
            }
            if !matches!(unit.disposition, Disposition::Handled | Disposition::Dropped { .. }) {
                folded.disposition_rows.push(DispositionRow { handler: &unit.handler, disposition: &unit.disposition });
            }
            folded.sends.extend(unit.sends.iter().map(|outgoing| (*index, outgoing)));
        }
        // in the order of the tables: each row is found near the one before
        folded.chains.sort_unstable_by(|a, b| (a.kind, a.key).cmp(&(b.kind, b.key)));
        folded.rows.values_mut().for_each(|rows| rows.sort_unstable());
        Ok(folded)
    }

    fn gate(&mut self, context: &WriteContext<'_>, unit: &'b UnitOfWork) {
        match &unit.gate {
            Gate::None => {}
            Gate::Row(row) => self.rows.entry(row.table).or_default().push((row.id, row.token)),
            Gate::Inbox => match dedup_slot(unit.message_id, context.now, context.shared.options.horizon) {
                DedupSlot::Day(day) => self.inbox.push((day, &unit.handler, unit.message_id)),
                DedupSlot::Misc(day) => self.inbox_misc.push((day, &unit.handler, unit.message_id)),
            },
        }
        if let Some(fence) = &unit.fence
            && !self.fences.contains(&fence)
        {
            self.fences.push(fence);
        }
    }

    /// Cancels reach back into the batch: a timer that an earlier unit of it sets is not set at all.
    fn timer(&mut self, context: &WriteContext<'_>, handler: &'b Arc<str>, change: &'b TimerChange) {
        match change {
            TimerChange::Set { id, due, message } => {
                self.timers.retain(|timer| timer.id != *id);
                let due = match due {
                    Due::After(time) => context.now.plus(*time),
                    Due::At(time) => *time,
                };
                self.timers.push(NewTimer { handler, id: *id, due, message });
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

    fn saga(&mut self, chains: &mut HashMap<(&'b str, &'b str), usize>, write: &'b SagaWrite) -> bool {
        let slot = chains.entry((&write.kind, &write.key)).or_insert(self.chains.len());
        let chain = match self.chains.get_mut(*slot) {
            Some(chain) => {
                if !chain.push(write) {
                    return false;
                }
                chain
            }
            None => {
                self.chains.push(Chain::new(write));
                match self.chains.last_mut() {
                    Some(chain) => chain,
                    None => return false,
                }
            }
        };
        let (kind, key, instance) = (chain.kind, chain.key, chain.instance);
        if matches!(write.change, sagabus_core::SagaChange::Create { .. }) {
            self.adopt.push((kind, Cow::Borrowed(key)));
        }
        if chain.end == End::Live {
            let new = write.aliases.iter().map(|(name, value)| Alias { kind, key, instance, name, value });
            self.aliases.extend(new);
            let named = write.aliases.iter().map(|(name, value)| (kind, Cow::Owned(alias_key(name, value))));
            self.adopt.extend(named);
        } else {
            self.timers.retain(|timer| !timer.is_of(kind, key, Some(instance)));
            self.aliases.retain(|alias| !(alias.kind == kind && alias.key == key));
            self.ended.push((kind, key, instance));
        }
        true
    }

    /// The lines of an ordered endpoint, (handler, key), in which a message was deferred or parked.
    pub(super) fn waiting_lines(&self) -> BTreeSet<(Arc<str>, String)> {
        let line = |row: &DispositionRow<'_>| match row.disposition {
            Disposition::Parked { until: ParkedUntil::KeyUnblocked { key }, .. } => {
                Some((row.handler.clone(), key.clone()))
            }
            _ => None,
        };
        self.disposition_rows.iter().filter_map(line).collect()
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
