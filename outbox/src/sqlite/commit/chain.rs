//! Folding the writes of one saga key into one.

use bytes::Bytes;
use sagabus_core::{InstanceId, SagaChange, SagaWrite, sabotage};
use std::{sync::Arc, time::Duration};

/// The writes of the units of one saga key, as one.
pub(super) struct Chain<'b> {
    pub(super) kind: &'b Arc<str>,
    pub(super) key: &'b str,
    /// What the row must be.
    pub(super) need: Need,
    pub(super) instance: InstanceId,
    /// The version after the chain.
    pub(super) version: i64,
    /// How many units it has.
    pub(super) units: i64,
    pub(super) state: Option<&'b Bytes>,
    pub(super) schema: Option<u32>,
    pub(super) origin: Option<&'b Bytes>,
    pub(super) end: End,
}

/// What must be in the table for a chain to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// No live row.
    Absent,
    /// A live row of the chain's instance with this version.
    At(i64),
}

/// What is left at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A live row.
    Live,
    /// No row.
    Gone,
    /// A completed row, for so long.
    Kept(Duration),
}

impl<'b> Chain<'b> {
    /// Begins one.
    pub(super) fn new(write: &'b SagaWrite) -> Self {
        let mut chain = Self {
            kind: &write.kind,
            key: &write.key,
            need: Need::Absent,
            instance: InstanceId(uuid::Uuid::nil()),
            version: 0,
            units: 0,
            state: None,
            schema: None,
            origin: None,
            end: End::Gone,
        };
        match &write.change {
            SagaChange::Create { .. } | SagaChange::Complete { version: 0, .. } => {}
            SagaChange::Update { version, .. } | SagaChange::Complete { version, .. } => {
                chain.need = Need::At(*version);
                chain.version = *version;
                chain.end = End::Live;
            }
        }
        chain.step(write);
        chain
    }

    /// Adds the next write; false if it does not build on the one before it.
    pub(super) fn push(&mut self, write: &'b SagaWrite) -> bool {
        let fits = match &write.change {
            // a life that ended in this batch is the last of its key in it
            SagaChange::Create { .. } | SagaChange::Complete { version: 0, .. } => false,
            SagaChange::Update { instance, version, .. } | SagaChange::Complete { instance, version, .. } => {
                self.end == End::Live
                    && (self.instance == *instance || sabotage::active("no-instance-check"))
                    && (self.version == *version || sabotage::active("no-version-check"))
            }
        };
        if fits {
            self.step(write);
        }
        fits
    }

    fn step(&mut self, write: &'b SagaWrite) {
        self.units += 1;
        self.version += 1;
        match &write.change {
            SagaChange::Create { instance, state, schema, origin } => {
                self.instance = *instance;
                self.state = Some(state);
                self.schema = Some(*schema);
                self.origin = origin.as_ref();
                self.end = End::Live;
            }
            SagaChange::Update { instance, state, schema, .. } => {
                self.instance = *instance;
                self.state = Some(state);
                self.schema = Some(*schema);
            }
            SagaChange::Complete { instance, keep, .. } => {
                self.instance = *instance;
                self.end = match keep {
                    Some((time, state)) => {
                        self.state = Some(state);
                        End::Kept(*time)
                    }
                    None => End::Gone,
                };
            }
        }
    }
}
