//! What a commit does: each unit is checked whole, then applied whole.

use super::{
    model::Model,
    rows::{Handling, InboxRow, More, Row},
};
use sagabus_core::{
    CommitBatch, CommitReply, Disposition, Envelope, Gate, MessageId, Outcome, Owner, ParkedUntil, RowGate, RowTable,
    Timestamp, UnitOfWork, sabotage, shard_of,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Ids within this time of now are ordinary; others say nothing about when they arrive again.
const MAX_AGE_OF_DATED_IDS: Duration = Duration::from_secs(7 * 86_400);

impl Model {
    pub(super) fn commit(&mut self, batch: &CommitBatch, now: Timestamp) -> CommitReply {
        // the sagas whose chain is broken: what comes later was built on a state that was never written
        let mut broken = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(batch.units.len());
        for unit in &batch.units {
            let chain = unit.saga.as_ref().map(|write| (&write.kind, &write.key));
            let outcome = match chain {
                Some(chain) if broken.contains(&chain) && self.is_unclaimed(&batch.owner.endpoint, unit) => {
                    Outcome::Stale
                }
                _ => self.unit(&batch.owner, batch.joined, unit, now),
            };
            if !outcome.is_applied() {
                broken.extend(chain);
            }
            outcomes.push(outcome);
        }
        self.forget_sent(&batch.sent);
        CommitReply { outcomes, cleaned: true }
    }

    /// One unit: the gate, the fence, the saga; then everything, which cannot fail any more.
    pub(super) fn unit(&mut self, owner: &Owner, joined: bool, unit: &UnitOfWork, now: Timestamp) -> Outcome {
        match self.refusal(&owner.endpoint, unit, now) {
            Some(refusal) => refusal,
            None => self.apply(owner, joined, unit, now),
        }
    }

    /// Why the unit cannot be applied, if it cannot.
    pub(super) fn refusal(&mut self, endpoint: &Arc<str>, unit: &UnitOfWork, now: Timestamp) -> Option<Outcome> {
        if !self.is_unclaimed(endpoint, unit) {
            return Some(Outcome::Duplicate);
        }
        if sabotage::active("inbox-apart") {
            self.claim_gate(endpoint, unit, now);
        }
        let fenced = unit.fence.as_ref().is_none_or(|fence| self.holds(fence));
        let fits = fenced && unit.saga.as_ref().is_none_or(|write| self.saga_fits(write));
        (!fits).then_some(Outcome::Stale)
    }

    pub(super) fn apply(&mut self, owner: &Owner, joined: bool, unit: &UnitOfWork, now: Timestamp) -> Outcome {
        let endpoint = &owner.endpoint;
        self.claim_gate(endpoint, unit, now);
        if unit.has_attempt_row {
            self.attempts.remove(&handling(endpoint, unit));
        }
        self.dispose(endpoint, unit, now);
        for change in &unit.timers {
            self.change_timer(endpoint, &unit.handler, change, now);
        }
        if let Some(write) = &unit.saga {
            self.write_saga(endpoint, write, now);
        }
        self.sends(owner, joined, &unit.sends, unit.fresh_ids, now)
    }

    fn is_unclaimed(&mut self, endpoint: &Arc<str>, unit: &UnitOfWork) -> bool {
        match unit.gate {
            Gate::None => true,
            Gate::Inbox => sabotage::active("skip-inbox-check") || !self.inbox.contains_key(&handling(endpoint, unit)),
            // a queue row is never moved, so its id says it all
            Gate::Row(RowGate { table: RowTable::Queue, id, .. }) => self.queue_of.contains_key(&id),
            Gate::Row(RowGate { table: RowTable::Timer, .. }) if sabotage::active("timer-delete-early") => true,
            Gate::Row(gate) => self.table(gate.table).get(&gate.id).is_some_and(|row| row.token == gate.token),
        }
    }

    fn claim_gate(&mut self, endpoint: &Arc<str>, unit: &UnitOfWork, now: Timestamp) {
        match unit.gate {
            Gate::None => {}
            Gate::Inbox => {
                let misc = is_undated(unit.message_id, now);
                self.inbox.insert(handling(endpoint, unit), InboxRow { at: now, misc });
            }
            Gate::Row(gate) if gate.table == RowTable::Queue => self.remove_queue_row(gate.id),
            Gate::Row(gate) => {
                self.table(gate.table).remove(&gate.id);
                // the next one of its key may be unblocked now
                self.wake_due(endpoint);
            }
        }
    }

    fn dispose(&mut self, endpoint: &Arc<str>, unit: &UnitOfWork, now: Timestamp) {
        let row = |message: &Envelope, attempts, key: Option<String>, due, more| Row {
            endpoint: endpoint.clone(),
            handler: unit.handler.clone(),
            due,
            token: 1,
            shard: shard(key.as_deref(), message),
            attempts,
            key,
            message: message.clone(),
            more,
        };
        let (table, row) = match &unit.disposition {
            Disposition::Handled | Disposition::Dropped { .. } => return,
            Disposition::Deferred { message, key, attempts, delay, .. } => {
                (RowTable::Retry, row(message, *attempts, key.clone(), now.plus(*delay), More::Retry))
            }
            Disposition::DeadLettered { message, attempts, reason, detail } => {
                let more =
                    More::DeadLetter { at: now, reason: reason.clone(), detail: detail.clone(), retrying: false };
                (RowTable::DeadLetter, row(message, *attempts, None, now, more))
            }
            Disposition::Parked { message, attempts, until } => match until {
                ParkedUntil::Saga { kind, key, at_most } => {
                    let due = if self.has_arrived(kind, key) { now } else { now.plus(*at_most) };
                    (
                        RowTable::Parked,
                        row(message, *attempts, None, due, More::ParkedForSaga(kind.clone(), key.clone())),
                    )
                }
                ParkedUntil::KeyUnblocked { key } => {
                    (RowTable::Parked, row(message, *attempts, Some(key.clone()), now, More::ParkedForKey))
                }
            },
        };
        self.insert(table, row);
    }
}

pub(super) fn handling(endpoint: &Arc<str>, unit: &UnitOfWork) -> Handling {
    (endpoint.clone(), unit.handler.clone(), unit.message_id)
}

/// The shard of a row: of its order key, or of its saga's key, or of its message.
pub(super) fn shard(key: Option<&str>, message: &Envelope) -> u16 {
    let headers = &message.headers;
    let key = key.or(headers.order_key.as_deref());
    match key.or(headers.saga.as_ref().map(|saga| saga.key.as_str())) {
        Some(key) => shard_of(key.as_bytes()),
        None => shard_of(headers.message_id.0.as_bytes()),
    }
}

fn is_undated(id: MessageId, now: Timestamp) -> bool {
    let day = |time: Timestamp| time.0.div_euclid(86_400_000_000);
    let oldest =
        Timestamp(now.0.saturating_sub_unsigned(u64::try_from(MAX_AGE_OF_DATED_IDS.as_micros()).unwrap_or(u64::MAX)));
    id.day().is_none_or(|born| born > day(now) + 1 || born < day(oldest))
}
