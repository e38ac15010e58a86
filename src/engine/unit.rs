//! One message on its way through one handler.

use sagabus_core::{Disposition, Effects, Envelope, Fence, Gate, MessageId, Outgoing, Route, SagaLookup, UnitOfWork};
use std::{any::Any, sync::Arc};

/// Names a unit within this engine; grows in the order of arrival.
pub(crate) type UnitId = u64;

/// What runs one after another: the messages of one saga.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) kind: Arc<str>,
    pub(crate) key: Arc<str>,
}

/// Identifies what may be in flight only once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GateKey {
    /// With the attempts before: without a store, a message that is tried again later is a copy, which may come before
    /// the original is through. With a store there are none.
    Inbox(Arc<str>, MessageId, u32),
    Row(sagabus_core::RowGate),
}

pub(crate) struct Unit {
    /// Its delivery.
    pub(crate) delivery: u64,
    /// Its handler; `None` for a message that is buried without one.
    pub(crate) route: Option<Arc<dyn Route>>,
    pub(crate) handler: Arc<str>,
    pub(crate) message: Arc<Envelope>,
    /// The message's: asked for when its headers are no longer in any cache.
    pub(crate) message_id: MessageId,
    /// The decoded message, until the handler takes it.
    pub(crate) input: Option<Box<dyn Any + Send>>,
    pub(crate) gate: Gate,
    /// It is the one that stands in the engine's table of gates.
    pub(crate) owns_gate: bool,
    pub(crate) fence: Option<Fence>,
    pub(crate) lookup: Option<SagaLookup>,
    pub(crate) lane: Option<LaneKey>,
    /// Ordered endpoints: the key that a failure blocks.
    pub(crate) order_key: Option<String>,
    /// Whether it must wait while an earlier message of its order key is retried or parked. A row that is due has had
    /// its turn.
    pub(crate) waits_for_key: bool,
    /// Failures before this delivery, and since.
    pub(crate) attempts: u32,
    /// What the durable counter started from.
    pub(crate) attempts_before: u32,
    /// Whether the durable counter has a row for it.
    pub(crate) counted: bool,
    /// It was to be buried by a handler that did not know of all failures: that happens once.
    pub(crate) dead_letter_postponed: bool,
    /// It may have killed a process: it runs alone, counted before the handler.
    pub(crate) suspect: bool,
    /// Decided before any handler: it gets to none.
    pub(crate) predetermined: Option<Box<Predetermined>>,
    /// The same message, delivered again meanwhile.
    pub(crate) followers: Vec<UnitId>,
    /// It failed on a state that was not committed: it runs again when nothing of its saga is uncommitted.
    pub(crate) needs_committed_state: bool,
    /// The lane's epoch when its handler started.
    pub(crate) epoch: u64,
    /// The sends of the finished handler, for dispatch after the commit.
    pub(crate) sends: Vec<Outgoing>,
    /// How the finished unit counts.
    pub(crate) tally: Tally,
    /// How far it is.
    pub(crate) stage: Stage,
    /// How often it came back as stale.
    pub(crate) stale: u32,
}

/// What becomes of a message that no handler gets, however often its commit fails.
#[derive(Clone)]
pub(crate) enum Predetermined {
    /// Undecodable, unknown, expired.
    Dispose(Disposition),
    /// An operator's retry of what reached no handler is sent by today's routes.
    Send(Outgoing),
}

/// How far a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// For a load, its lane, its turn or the store.
    Waiting,
    /// Its handler runs, or its failure is being counted.
    Running,
    /// For the pause before a retry.
    Retrying,
    /// With the committer.
    Committing,
}

/// How a finished unit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tally {
    #[default]
    Handled,
    Deferred,
    Dead,
    Parked,
    Dropped(&'static str),
}

impl Unit {
    pub(crate) fn gate_key(&self) -> Option<GateKey> {
        match self.gate {
            Gate::Inbox => Some(GateKey::Inbox(self.handler.clone(), self.message_id, self.attempts_before)),
            Gate::Row(row) => Some(GateKey::Row(row)),
            Gate::None => None,
        }
    }

    /// The unit of work of a handler that has succeeded.
    pub(crate) fn handled(&mut self, effects: Effects, keep_sends: bool) -> UnitOfWork {
        let mut work = self.work();
        work.saga = effects.saga;
        work.timers = effects.timers;
        work.fresh_ids = !effects.chosen_ids && work.gate != Gate::None;
        if keep_sends {
            self.sends.clone_from(&effects.sends);
            if work.fresh_ids {
                self.sends.iter_mut().for_each(|send| send.message.headers.first_attempt = true);
            }
        }
        work.sends = effects.sends;
        work.delayed_sends = effects.delayed_sends;
        self.tally = Tally::Handled;
        work
    }

    /// The unit of work of a message that no handler handles now.
    pub(crate) fn disposed(&mut self, disposition: Disposition) -> UnitOfWork {
        self.tally = match &disposition {
            Disposition::Handled => Tally::Handled,
            Disposition::Deferred { .. } => Tally::Deferred,
            Disposition::DeadLettered { .. } => Tally::Dead,
            Disposition::Parked { .. } => Tally::Parked,
            Disposition::Dropped { policy } => Tally::Dropped(policy),
        };
        self.sends.clear();
        let mut work = self.work();
        work.disposition = disposition;
        work
    }

    fn work(&self) -> UnitOfWork {
        let mut work = UnitOfWork::new(self.handler.clone(), self.message_id, self.gate);
        work.fence.clone_from(&self.fence);
        work.has_attempt_row = self.counted;
        work
    }
}
