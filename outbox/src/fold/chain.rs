//! The writes of one saga key in a batch, folded into one.

use bytes::Bytes;
use sagabus_core::{InstanceId, SagaChange, SagaWrite, sabotage};
use std::{sync::Arc, time::Duration};

/// The row that must be there before a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// None, or a completed one that is kept.
    Absent,
    /// A running one of this instance and version.
    At(InstanceId, i64),
}

/// The row that a chain leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'b> {
    /// A running one.
    Live,
    /// None.
    Gone,
    /// A completed one with this state, kept for this time.
    Kept(Duration, &'b Bytes),
}

/// The writes of the units of one saga key, as one.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'b> {
    pub(crate) kind: &'b Arc<str>,
    pub(crate) key: &'b str,
    pub(crate) start: Start,
    pub(crate) end: End<'b>,
    pub(crate) instance: InstanceId,
    /// The version after the chain.
    pub(crate) version: i64,
    pub(crate) state: Option<&'b Bytes>,
    pub(crate) schema: Option<u32>,
    pub(crate) origin: Option<&'b Bytes>,
}

/// The reason why a write cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It does not build on the writes before it.
    Broken,
    /// It begins another instance, which takes a statement of its own.
    Cut,
}

impl<'b> Chain<'b> {
    pub(crate) fn new(write: &'b SagaWrite) -> Self {
        let (instance, version) = match &write.change {
            SagaChange::Create { instance, .. } => (*instance, 0),
            SagaChange::Update { instance, version, .. } | SagaChange::Complete { instance, version, .. } => {
                (*instance, *version)
            }
        };
        let absent = version == 0 && !matches!(write.change, SagaChange::Update { .. });
        let mut chain = Self {
            kind: &write.kind,
            key: &write.key,
            start: if absent { Start::Absent } else { Start::At(instance, version) },
            end: End::Live,
            instance,
            version,
            state: None,
            schema: None,
            origin: None,
        };
        chain.step(&write.change);
        chain
    }

    /// Adds the next write.
    pub(crate) fn push(&mut self, write: &'b SagaWrite) -> Result<(), Refused> {
        let fits = match &write.change {
            SagaChange::Create { .. } | SagaChange::Complete { version: 0, .. } => {
                return Err(if self.end == End::Live { Refused::Broken } else { Refused::Cut });
            }
            SagaChange::Update { instance, version, .. } | SagaChange::Complete { instance, version, .. } => {
                self.end == End::Live && is_same(*instance, *version, (self.instance, self.version))
            }
        };
        if fits {
            self.step(&write.change);
            Ok(())
        } else {
            Err(Refused::Broken)
        }
    }

    /// The state to store, running or kept.
    pub(crate) fn stored_state(&self) -> &'b [u8] {
        match self.end {
            End::Kept(_, state) => state,
            End::Live | End::Gone => self.state.map_or(&[], |state| state),
        }
    }

    /// The version that the row must have before the chain; 0 for none.
    pub(crate) fn expected_version(&self) -> i64 {
        match self.start {
            Start::At(_, version) => version,
            Start::Absent => 0,
        }
    }

    fn step(&mut self, change: &'b SagaChange) {
        self.version += 1;
        match change {
            SagaChange::Create { state, schema, origin, .. } => {
                (self.state, self.schema, self.origin) = (Some(state), Some(*schema), origin.as_ref());
            }
            SagaChange::Update { state, schema, .. } => {
                (self.state, self.schema) = (Some(state), Some(*schema));
            }
            SagaChange::Complete { keep, .. } => {
                self.end = keep.as_ref().map_or(End::Gone, |(time, state)| End::Kept(*time, state));
            }
        }
    }
}

/// The (instance, version) of a saga, unless it is absent or completed.
pub(crate) type LiveRow = Option<(InstanceId, i64)>;

/// Applies a single write to a row. False if it does not fit, and the row is as before.
pub(crate) fn apply_write(row: &mut LiveRow, write: &SagaWrite) -> bool {
    let after = match (&write.change, *row) {
        (SagaChange::Create { instance, .. }, None) => Some((*instance, 1)),
        (SagaChange::Complete { version: 0, .. }, None) => None,
        (SagaChange::Complete { version: 0, .. }, Some(_)) => return false,
        (SagaChange::Update { instance, version, .. }, Some(row)) if is_same(*instance, *version, row) => {
            Some((*instance, version + 1))
        }
        (SagaChange::Complete { instance, version, .. }, Some(row)) if is_same(*instance, *version, row) => None,
        _ => return false,
    };
    *row = after;
    true
}

/// Whether a write of (instance, version) fits a running row. Planted bugs leave out a comparison.
fn is_same(instance: InstanceId, version: i64, row: (InstanceId, i64)) -> bool {
    (instance == row.0 || sabotage::active("no-instance-check"))
        && (version == row.1 || sabotage::active("no-version-check"))
}
