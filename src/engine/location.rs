//! The places where a unit can be, and the ways between them.

use super::keys::UnitId;

/// The place of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Made, and not placed yet: only while it is admitted.
    Admitted,
    /// Among the followers of this unit, which has the same message and handler.
    Following(UnitId),
    /// In the queue of the suspects.
    SuspectQueue,
    /// In the list of units for the next load.
    WaitingForLoad,
    /// In the load under way.
    Loading,
    /// Among the waiting units of its lane.
    InLane,
    /// In the ready list, by itself.
    Ready,
    /// Its start as a suspect is being counted. It holds its lane.
    CountingSuspect,
    /// Its handler runs. It holds its lane.
    Running,
    /// Its failure is being counted. It holds its lane.
    CountingFailure,
    /// In the pause before an immediate retry. It holds its lane.
    RetryPause,
    /// In the list of units that wait for the store to come back.
    StalledByStore,
    /// In the queue of this committer.
    CommitQueue(usize),
    /// In the batch that is being committed, or in its own transaction.
    Committing,
}

/// The part of a lane that a unit is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LanePart {
    None,
    Waiting,
    Running,
    Pending,
}

impl Location {
    /// Whether a stop lets the unit run to its end.
    pub(super) fn is_started(self) -> bool {
        matches!(
            self,
            Self::Running | Self::CountingSuspect | Self::CountingFailure | Self::CommitQueue(_) | Self::Committing
        )
    }

    /// Whether a unit may go from here to there.
    pub(super) fn leads_to(self, to: Self) -> bool {
        use Location::*;
        let begins = matches!(to, WaitingForLoad | InLane | Ready | CommitQueue(_));
        match self {
            Admitted => begins || matches!(to, Following(_) | SuspectQueue),
            Following(_) => false,
            SuspectQueue => begins,
            WaitingForLoad => to == Loading,
            Loading => begins, // back to the list if the load fails
            InLane => matches!(to, Running | CountingSuspect | CommitQueue(_)),
            Ready => matches!(to, Running | CountingSuspect),
            CountingSuspect => matches!(to, Running | CommitQueue(_) | StalledByStore),
            Running => begins || matches!(to, CountingFailure | RetryPause | Committing | StalledByStore),
            CountingFailure => matches!(to, RetryPause | CommitQueue(_)),
            RetryPause => matches!(to, InLane | Ready),
            StalledByStore => begins,
            CommitQueue(_) => matches!(to, Committing | InLane),
            Committing => begins || to == StalledByStore,
        }
    }

    /// The part of its lane that the unit is in; `leads_lane`: whether later units build on it before it is committed.
    pub(super) fn lane_part(self, leads_lane: bool) -> LanePart {
        match self {
            Self::InLane => LanePart::Waiting,
            Self::Running | Self::CountingSuspect | Self::CountingFailure | Self::RetryPause => LanePart::Running,
            Self::CommitQueue(_) | Self::Committing if leads_lane => LanePart::Pending,
            _ => LanePart::None,
        }
    }
}
