//! One message on its way through one handler.

use super::{
    keys::{GateKey, LaneKey, UnitId},
    location::Location,
};
use sagabus_core::{Disposition, Effects, Envelope, Fence, Gate, MessageId, Outgoing, Route, SagaLookup, UnitOfWork};
use std::{any::Any, sync::Arc};

/// One message for one handler.
pub(super) struct Unit {
    /// Its delivery.
    pub(super) delivery: u64,
    /// The one place where it is. Changed by [`Engine::move_unit`](super::Engine::move_unit) only.
    pub(super) location: Location,
    /// Its handler; `None` for a message that becomes a dead letter without one.
    pub(super) route: Option<Arc<dyn Route>>,
    pub(super) handler: Arc<str>,
    pub(super) message: Arc<Envelope>,
    /// The message's: asked for when its headers are no longer in any cache.
    pub(super) message_id: MessageId,
    /// The decoded message, until the handler takes it.
    pub(super) input: Option<Box<dyn Any + Send>>,
    /// Decided before any handler: it gets to none.
    pub(super) predetermined: Option<Box<Predetermined>>,
    pub(super) guard: Guard,
    pub(super) saga: SagaTarget,
    pub(super) order: KeyOrder,
    pub(super) attempts: Attempts,
    pub(super) result: UnitResult,
}

/// The guard of a unit: sees to it that the unit applies once.
pub(super) struct Guard {
    pub(super) gate: Gate,
    /// The unit is the one in the engine's table of gates.
    pub(super) owns_gate: bool,
    pub(super) fence: Option<Fence>,
    /// Units of the same message and handler that came meanwhile.
    pub(super) followers: Vec<UnitId>,
    /// How often its commit came back as stale.
    pub(super) stale: u32,
}

/// The saga that a unit is for.
#[derive(Default)]
pub(super) struct SagaTarget {
    pub(super) lookup: Option<SagaLookup>,
    pub(super) lane: Option<LaneKey>,
    /// The lane's epoch when the handler started.
    pub(super) epoch: u64,
    /// The handler failed on a state that was not committed: it runs again when nothing of its saga is uncommitted.
    pub(super) needs_committed_state: bool,
}

/// The order key of a unit, in an ordered endpoint.
#[derive(Default)]
pub(super) struct KeyOrder {
    /// The key that a failure blocks.
    pub(super) key: Option<String>,
    /// The unit must wait while an earlier message of its key is retried or parked. A row that is due need not.
    pub(super) waits_for_key: bool,
}

/// The failures of a unit.
#[derive(Clone, Copy, Default)]
pub(super) struct Attempts {
    /// Failures before this delivery, and since.
    pub(super) total: u32,
    /// The number that the durable counter started from.
    pub(super) before: u32,
    /// The durable counter has a row for it.
    pub(super) has_row: bool,
    /// Its dead letter was put off because the handler did not know of all failures: that happens once.
    pub(super) dead_letter_postponed: bool,
    /// It may have killed a process: it runs alone, counted before the handler.
    pub(super) suspect: bool,
}

/// The result of a unit, on its way to the store.
#[derive(Default)]
pub(super) struct UnitResult {
    /// The work that its committer is to commit.
    pub(super) work: Option<UnitOfWork>,
    /// The sends of the finished handler, for dispatch after the commit.
    pub(super) sends: Vec<Outgoing>,
    /// How the finished unit counts.
    pub(super) tally: Tally,
}

/// The decision on a message that no handler gets, however often its commit fails.
#[derive(Clone)]
pub(super) enum Predetermined {
    /// Undecodable, unknown, expired.
    Dispose(Disposition),
    /// An operator's retry of what reached no handler is sent by today's routes.
    Send(Outgoing),
}

/// How a finished unit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tally {
    #[default]
    Handled,
    Deferred,
    DeadLettered,
    Parked,
    Dropped(&'static str),
}

/// The common part of the units of one delivery.
pub(super) struct UnitTemplate {
    pub(super) delivery: u64,
    pub(super) message: Arc<Envelope>,
    pub(super) gate: Gate,
    pub(super) fence: Option<Fence>,
    /// Failures before this delivery.
    pub(super) attempts: u32,
}

impl UnitTemplate {
    pub(super) fn unit(&self, route: Option<Arc<dyn Route>>, handler: Arc<str>) -> Box<Unit> {
        Box::new(Unit {
            delivery: self.delivery,
            location: Location::Admitted,
            route,
            handler,
            message: self.message.clone(),
            message_id: self.message.headers.message_id,
            input: None,
            predetermined: None,
            guard: Guard {
                gate: self.gate,
                owns_gate: false,
                fence: self.fence.clone(),
                followers: Vec::new(),
                stale: 0,
            },
            saga: SagaTarget::default(),
            order: KeyOrder::default(),
            attempts: Attempts { total: self.attempts, before: self.attempts, ..Attempts::default() },
            result: UnitResult::default(),
        })
    }
}

impl Unit {
    pub(super) fn gate_key(&self) -> Option<GateKey> {
        match self.guard.gate {
            Gate::Inbox => Some(GateKey::Inbox(self.handler.clone(), self.message_id, self.attempts.before)),
            Gate::Row(row) => Some(GateKey::Row(row)),
            Gate::None => None,
        }
    }

    /// Whether later units of its lane run on the state that this one has produced, before it is committed.
    pub(super) fn leads_lane(&self) -> bool {
        self.saga.lane.is_some() && self.result.tally == Tally::Handled
    }

    /// The unit of work of a handler that has succeeded.
    pub(super) fn handled(&mut self, effects: Effects, keep_sends: bool) -> UnitOfWork {
        let mut work = self.work();
        work.saga = effects.saga;
        work.timers = effects.timers;
        work.fresh_ids = !effects.chosen_ids && work.gate != Gate::None;
        if keep_sends {
            self.result.sends.clone_from(&effects.sends);
            if work.fresh_ids {
                self.result.sends.iter_mut().for_each(|send| send.message.headers.first_attempt = true);
            }
        }
        work.sends = effects.sends;
        work.delayed_sends = effects.delayed_sends;
        self.result.tally = Tally::Handled;
        work
    }

    /// The unit of work of a message that no handler handles now.
    pub(super) fn disposed(&mut self, disposition: Disposition) -> UnitOfWork {
        self.result.tally = match &disposition {
            Disposition::Handled => Tally::Handled,
            Disposition::Deferred { .. } => Tally::Deferred,
            Disposition::DeadLettered { .. } => Tally::DeadLettered,
            Disposition::Parked { .. } => Tally::Parked,
            Disposition::Dropped { policy } => Tally::Dropped(policy),
        };
        self.result.sends.clear();
        let mut work = self.work();
        work.disposition = disposition;
        work
    }

    fn work(&self) -> UnitOfWork {
        let mut work = UnitOfWork::new(self.handler.clone(), self.message_id, self.guard.gate);
        work.fence.clone_from(&self.guard.fence);
        work.has_attempt_row = self.attempts.has_row;
        work
    }
}
