//! The units of one saga key in a batch, folded into one write.

use bytes::Bytes;
use sagabus_core::{InstanceId, SagaChange, SagaWrite, sabotage};
use std::{sync::Arc, time::Duration};

/// What the row must be before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// There is none, or a completed one that is kept.
    Absent,
    /// A live one of this instance and version.
    At(InstanceId, i64),
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End<'b> {
    Live,
    Gone,
    Kept(Duration, &'b Bytes),
}

/// A chain.
#[derive(Clone, Debug)]
pub(super) struct Chain<'b> {
    pub(super) kind: &'b Arc<str>,
    pub(super) key: &'b str,
    pub(super) start: Start,
    pub(super) end: End<'b>,
    pub(super) instance: InstanceId,
    pub(super) version: i64,
    pub(super) state: Option<&'b Bytes>,
    pub(super) schema: Option<u32>,
    pub(super) origin: Option<&'b Bytes>,
}

/// Why a write cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It does not build on what is before it.
    Broken,
    /// It begins another instance: a statement of its own.
    Cut,
}

impl<'b> Chain<'b> {
    pub(super) fn new(write: &'b SagaWrite) -> Self {
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

    pub(super) fn push(&mut self, write: &'b SagaWrite) -> Result<(), Refused> {
        let fits = match &write.change {
            SagaChange::Create { .. } | SagaChange::Complete { version: 0, .. } => {
                return Err(if self.end == End::Live { Refused::Broken } else { Refused::Cut });
            }
            SagaChange::Update { instance, version, .. } | SagaChange::Complete { instance, version, .. } => {
                self.end == End::Live && same(*instance, *version, self.instance, self.version)
            }
        };
        if fits {
            self.step(&write.change);
            Ok(())
        } else {
            Err(Refused::Broken)
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

/// Whether a write of (instance, version) fits a live row.
pub(super) fn same(instance: InstanceId, version: i64, row: InstanceId, at: i64) -> bool {
    (instance == row || sabotage::active("no-instance-check"))
        && (version == at || sabotage::active("no-version-check"))
}
