//! The messages of one saga key, one after another.

use super::keys::UnitId;
use sagabus_core::{SagaChange, SagaRow, SagaWrite};
use std::collections::VecDeque;

/// Most units of one key that run ahead of their commits.
const MAX_UNITS_AHEAD_OF_COMMIT: usize = 128;

/// One saga key's waiting, running and uncommitted units.
///
/// A unit may run on the state that the one before it has produced but not yet committed; the version gate makes the
/// whole run of them fail together if one does. Then the lane is invalidated: everything goes back to waiting, in the
/// order of arrival, and the state is loaded again.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) waiting: VecDeque<UnitId>,
    pub(super) running: Option<UnitId>,
    /// Finished, handed to the committer, in order.
    pub(super) pending: VecDeque<UnitId>,
    /// `None`: not loaded. `Some(None)`: there is no such saga.
    pub(super) state: Option<Option<SagaRow>>,
    /// Grows with each invalidation: what started under an older one is void.
    pub(super) epoch: u64,
    /// A unit with its own SQL is being committed: nothing may run ahead of it.
    pub(super) own_sql_committing: bool,
    /// The state is from the cache, and no commit has proved it yet.
    pub(super) from_cache: bool,
    /// The last unit that had arrived when the state was asked for. For those that came later it may be too old: another
    /// node may have created the saga that they are for.
    pub(super) loaded_as_of: UnitId,
    /// It stands in the engine's ready list.
    pub(super) ready: bool,
    /// A load for it is under way.
    pub(super) loading: bool,
}

impl Lane {
    pub(super) fn can_run(&self) -> bool {
        self.running.is_none()
            && !self.own_sql_committing
            && !self.waiting.is_empty()
            && self.state.is_some()
            && self.pending.len() < MAX_UNITS_AHEAD_OF_COMMIT
    }

    pub(super) fn wants_load(&self) -> bool {
        self.state.is_none()
            && !self.loading
            && self.running.is_none()
            && self.pending.is_empty()
            && !self.waiting.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none() && self.pending.is_empty()
    }

    /// Adds a waiting unit, by its order of arrival.
    pub(super) fn enqueue(&mut self, unit: UnitId) {
        let at = self.waiting.partition_point(|other| *other < unit);
        self.waiting.insert(at, unit);
    }

    /// Has the state loaded before anything else happens.
    pub(super) fn reload(&mut self) {
        self.state = None;
        self.from_cache = false;
    }

    pub(super) fn invalidate(&mut self) {
        self.epoch += 1;
        self.reload();
        self.own_sql_committing = false;
    }

    /// The state that the next unit builds on.
    pub(super) fn advance(&mut self, write: &SagaWrite) {
        let before = self.state.take().flatten();
        let row = |instance, version, state: &bytes::Bytes, schema, origin| SagaRow {
            kind: write.kind.clone(),
            key: write.key.clone(),
            instance,
            version,
            state: state.clone(),
            schema,
            origin,
            completed: false,
        };
        self.state = Some(match &write.change {
            SagaChange::Create { instance, state, schema, origin } => {
                Some(row(*instance, 1, state, *schema, origin.clone()))
            }
            SagaChange::Update { instance, version, state, schema } => {
                Some(row(*instance, version + 1, state, *schema, before.and_then(|b| b.origin)))
            }
            SagaChange::Complete { keep: None, .. } => None,
            SagaChange::Complete { instance, version, keep: Some((_, state)) } if *version > 0 => {
                let mut kept = row(*instance, version + 1, state, before.as_ref().map_or(1, |b| b.schema), None);
                kept.completed = true;
                Some(kept)
            }
            // a saga that its first message completes is never stored; whether an older one is kept is not known here
            SagaChange::Complete { .. } => before.filter(|b| b.completed),
        });
    }
}
