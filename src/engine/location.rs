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

#[cfg(test)]
mod tests {
    use super::{Location::*, *};

    const ALL: [Location; 14] = [
        Admitted,
        Following(1),
        SuspectQueue,
        WaitingForLoad,
        Loading,
        InLane,
        Ready,
        CountingSuspect,
        Running,
        CountingFailure,
        RetryPause,
        StalledByStore,
        CommitQueue(0),
        Committing,
    ];

    #[test]
    fn every_location_leads_to_a_commit_and_none_back_to_admission() {
        let mut reached = vec![Committing];
        while let Some(next) = ALL.iter().find(|at| !reached.contains(at) && reached.iter().any(|to| at.leads_to(*to)))
        {
            reached.push(*next);
        }
        // a follower ends with the unit that it follows
        let stuck: Vec<&Location> = ALL.iter().filter(|at| !reached.contains(at)).collect();
        assert_eq!(stuck, [&Following(1)]);
        assert!(ALL.iter().all(|at| !at.leads_to(Admitted) && !at.leads_to(*at)));
        assert!(ALL.iter().all(|at| *at == Admitted || ALL.iter().any(|from| from.leads_to(*at))));
    }

    #[test]
    fn a_unit_holds_its_lane_from_its_start_to_its_commit() {
        let holding: Vec<&Location> = ALL.iter().filter(|at| at.lane_part(true) == LanePart::Running).collect();
        assert_eq!(holding, [&CountingSuspect, &Running, &CountingFailure, &RetryPause]);
        assert!(ALL.iter().all(|at| at.lane_part(false) != LanePart::Pending));
    }
}
