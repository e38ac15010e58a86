//! Stores with a defect, which the suite must find: a suite that a broken store passes proves nothing.

mod admin;
mod harness;
mod leases;
mod positions;
mod queues;
mod store;
mod transaction;
mod unit;

pub use harness::BrokenHarness;

use sagabus_core::{DatabaseId, Owner, Store};
use std::sync::{Arc, Mutex};

macro_rules! defects {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a [`Broken`] store does wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Defect {
            $($(#[doc = $doc])+ $name,)+
        }

        /// All of them.
        pub const DEFECTS: &[Defect] = &[$(Defect::$name,)+];
    };
}

defects! {
    /// Messages of a unit are not sent.
    DropsSends,
    /// Messages of a unit are sent in the wrong order.
    ReversesSends,
    /// Timers are neither set nor cancelled.
    DropsTimers,
    /// Timers are not cancelled.
    DropsCancels,
    /// The saga is not written.
    DropsSaga,
    /// Aliases are not written.
    DropsAliases,
    /// A message that is deferred, parked or dead is taken for handled.
    DropsDisposition,
    /// The reason of a dead letter is lost.
    DropsReason,
    /// The inbox is not looked at.
    IgnoresInbox,
    /// The inbox does not tell handlers apart.
    InboxWithoutHandler,
    /// The probe always says no, the gate is right.
    ProbesNothing,
    /// A row gate is not compared, nor opened.
    IgnoresRowGates,
    /// A row gate's token is not compared.
    IgnoresTokens,
    /// The saga's version is not compared.
    IgnoresVersion,
    /// The saga's instance is not compared.
    IgnoresInstance,
    /// An update of a saga that is gone creates it.
    RevivesSagas,
    /// Creating a saga that lives replaces it.
    CreatesOver,
    /// Completing deletes nothing.
    CompletesNothing,
    /// The fence is not compared.
    IgnoresFence,
    /// Of a unit that does not apply, the messages leave all the same.
    SendsGhosts,
    /// Of a unit that does not apply, the timers are set all the same.
    AppliesHalf,
    /// One bad unit fails its batch.
    FailsWholeBatch,
    /// A broken chain goes on where a version fits by chance.
    ChainsGoOn,
    /// Timers are due an hour early.
    FiresEarly,
    /// Due rows of timers are never found.
    LosesTimers,
    /// Due rows come in the wrong order.
    UnsortedDue,
    /// Due rows of all shards are handed out.
    IgnoresShards,
    /// Pages begin at the start again.
    IgnoresAfter,
    /// Retries are due at once.
    IgnoresDelay,
    /// Creating a saga does not make due what was parked for it.
    AdoptsNothing,
    /// A blocked key is not reported.
    SeesNoTurns,
    /// A message that waits for its turn does not wait.
    JumpsTheQueue,
    /// Attempts are not counted up.
    ForgetsAttempts,
    /// Attempts stay after the commit.
    KeepsAttempts,
    /// States are cut at 255 bytes.
    CutsStates,
    /// Keys are compared without regard to case.
    FoldsKeys,
    /// Kinds are not compared.
    FoldsKinds,
    /// Outbox rows are taken from living owners.
    RobsOwners,
    /// Outbox rows of those who are gone are not found.
    OrphansStay,
    /// Nobody is ever behind.
    NeverBehind,
    /// Confirmed outbox rows that ride with a commit stay, and are reported as cleaned.
    KeepsSent,
    /// Outbox rows that are buried vanish.
    BuriesNowhere,
    /// Pruning has no horizon.
    PrunesAll,
    /// Pruning does nothing.
    PrunesNothing,
    /// Enqueued messages are lost.
    LosesEnqueued,
    /// Enqueueing an id again adds it again.
    EnqueuesTwice,
    /// A queue that does not exist swallows messages.
    SwallowsUnroutable,
    /// Subscriptions are only added to.
    NeverUnsubscribes,
    /// Deleting a row of a queue deletes nothing.
    DeletesNothing,
    /// Every node gets every shard.
    SharesNothing,
    /// Nobody ever gives up surplus.
    NoSurplus,
    /// Shards of the dead are not marked as inherited.
    HidesInheritance,
    /// A lapsed lease is not reported.
    HidesLapse,
    /// Leaving does nothing.
    NeverLeaves,
    /// The epoch does not grow.
    FrozenEpochs,
    /// A closed store works on.
    ClosesNothing,
    /// The database's clock stands still.
    FrozenClock,
    /// Own rows commit apart from the unit.
    LeaksOwnRows,
    /// Own rows never commit.
    LosesOwnRows,
    /// Enlisted sends leave at once.
    EnlistsAtOnce,
    /// Enlisted sends never leave.
    LosesEnlisted,
    /// A dead letter can be sent again while it is on its way.
    RetriesTwice,
    /// A retry of a dead letter does nothing but say so.
    RetriesNothing,
    /// Discarding reaches other endpoints' dead letters.
    DiscardsForeign,
    /// Moving a timer does nothing but say so.
    MovesNothing,
    /// Cancelling a timer does nothing but say so.
    CancelsNothing,
    /// Nobody is woken.
    WakesNobody,
    /// Saga keys are listed from the start in any case.
    ListsFromTheStart,
    /// The outbox does not tell endpoints apart.
    MixesEndpoints,
    /// Epochs grow with every heartbeat.
    RestlessEpochs,
    /// Groups are not told apart.
    MixesGroups,
    /// The queues say that they lie in another database.
    OtherDatabase,
    /// A transaction that is dropped commits its own rows.
    CommitsOnDrop,
    /// Tables are not counted.
    CountsNothing,
    /// A position is raised whoever asks.
    RaisesForAnybody,
    /// A position falls when somebody says so.
    LowersPositions,
    /// A position's mark is lost.
    ForgetsMarks,
    /// OffsetStore do not tell endpoints apart.
    MixesPositions,
    /// Claiming a position gives no new epoch.
    ClaimsNothing,
    /// Resetting a position does nothing but say so.
    ResetsNothing,
    /// What operators do is not written down.
    HidesAudit,
}

/// A store with a defect around a good one.
#[derive(Clone)]
pub struct Broken {
    inner: Arc<dyn Store>,
    defect: Defect,
    /// Who has committed through this handle or another one.
    owners: Arc<Mutex<Vec<Owner>>>,
    other: DatabaseId,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broken").finish_non_exhaustive()
    }
}

impl Broken {
    /// Breaks a store.
    pub fn new(inner: Arc<dyn Store>, defect: Defect) -> Self {
        Self { inner, defect, owners: Arc::default(), other: DatabaseId("other".into()) }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }
}
