use crate::random;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use uuid::Uuid;

/// Microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `after` later. Saturates.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As the standard library's type.
    pub fn to_system_time(self) -> std::time::SystemTime {
        match u64::try_from(self.0) {
            Ok(micros) => std::time::UNIX_EPOCH + Duration::from_micros(micros),
            Err(_) => std::time::UNIX_EPOCH - Duration::from_micros(self.0.unsigned_abs()),
        }
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self(0).plus(after),
            Err(before) => Self(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }
}

/// Where time, ids, randomness and tasks come from.
///
/// Nothing in sagabus asks the operating system for them directly (clippy's `disallowed-methods` holds everyone to it),
/// so that a whole endpoint runs under virtual time and a seed: `Runtime::simulated` (feature `simulation`).
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    source: Source,
}

enum Source {
    System {
        random: AtomicU64,
    },
    #[cfg(feature = "simulation")]
    Simulated(Arc<simulated::World>, simulated::Node),
}

/// A spawned task. Dropping it lets the task run on; [`Task::abort`] ends it.
#[derive(Debug)]
pub struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Task<T> {
    /// Waits for the result; `None` if the task panicked or was aborted.
    pub async fn join(self) -> Option<T> {
        self.0.await.ok()
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Runtime {
    /// The real thing: the system clock, random ids, tokio's tasks.
    pub fn system() -> Self {
        let seed = Uuid::now_v7_seed();
        Self(Arc::new(Inner { source: Source::System { random: AtomicU64::new(seed) } }))
    }

    /// Virtual time and seeded ids. Use it on a current-thread runtime whose time is paused: sleeping then costs nothing,
    /// and the same seed gives the same run.
    #[cfg(feature = "simulation")]
    pub fn simulated(seed: u64) -> Self {
        Self(Arc::new(Inner {
            source: Source::Simulated(Arc::new(simulated::World::new(seed, false)), simulated::Node::default()),
        }))
    }

    /// Time that stands still until [`advance`](Runtime::advance), and seeded ids. Needs no tokio runtime. For tests of
    /// handlers, which never sleep.
    #[cfg(feature = "simulation")]
    pub fn manual(seed: u64) -> Self {
        Self(Arc::new(Inner {
            source: Source::Simulated(Arc::new(simulated::World::new(seed, true)), simulated::Node::default()),
        }))
    }

    /// Moves a virtual clock on, beside what its tokio runtime's clock does. Nothing that sleeps is woken. Without effect
    /// on the system's clock.
    #[cfg(feature = "simulation")]
    pub fn advance(&self, by: Duration) {
        if let Source::Simulated(world, _) = &self.0.source {
            world.advance(by);
        }
    }

    /// Another process of the same simulated world: its tasks can be [killed](Runtime::kill) on their own.
    ///
    /// # Panics
    /// On the system runtime.
    #[cfg(feature = "simulation")]
    pub fn node(&self) -> Self {
        match &self.0.source {
            Source::Simulated(world, _) => {
                Self(Arc::new(Inner { source: Source::Simulated(world.clone(), simulated::Node::default()) }))
            }
            Source::System { .. } => panic!("only a simulated runtime has nodes"),
        }
    }

    /// Ends every task that was spawned through this node, each at the await where it is, as a crash of a process would.
    #[cfg(feature = "simulation")]
    pub fn kill(&self) {
        if let Source::Simulated(_, node) = &self.0.source {
            node.kill();
        }
    }

    /// Wall clock time. Never used for a due time or a lease: those use the database's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Timestamp {
        match &self.0.source {
            Source::System { .. } => std::time::SystemTime::now().into(),
            #[cfg(feature = "simulation")]
            Source::Simulated(world, _) => world.now(),
        }
    }

    /// A point on a clock that never jumps, as time since some start. For measuring how long something took.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn elapsed(&self) -> Duration {
        static START: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
        match &self.0.source {
            Source::System { .. } => START.get_or_init(tokio::time::Instant::now).elapsed(),
            #[cfg(feature = "simulation")]
            Source::Simulated(world, _) => world.elapsed(),
        }
    }

    /// Waits. Cancel-safe.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs a future with a time limit; `None` when the limit passed first.
    pub async fn timeout<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// A new UUIDv7: unique, and increasing within this process.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn uuid(&self) -> Uuid {
        match &self.0.source {
            Source::System { .. } => Uuid::now_v7(),
            #[cfg(feature = "simulation")]
            Source::Simulated(world, _) => world.uuid(),
        }
    }

    /// A random number. For jitter and shards, not for secrets.
    pub fn random(&self) -> u64 {
        match &self.0.source {
            Source::System { random } => random::next_shared(random),
            #[cfg(feature = "simulation")]
            Source::Simulated(world, _) => world.random(),
        }
    }

    /// A random duration between zero and `most`.
    pub fn jitter(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(if micros == 0 { 0 } else { self.random() % micros })
    }

    /// Runs a future as a task of its own.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let task = tokio::spawn(future);
        #[cfg(feature = "simulation")]
        if let Source::Simulated(_, node) = &self.0.source {
            node.add(task.abort_handle());
        }
        Task(task)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.source {
            Source::System { .. } => "Runtime(system)",
            #[cfg(feature = "simulation")]
            Source::Simulated(..) => "Runtime(simulated)",
        })
    }
}

trait Seed {
    fn now_v7_seed() -> u64;
}

impl Seed for Uuid {
    #[allow(clippy::disallowed_methods, reason = "a UUIDv7's low half is the randomness at hand")]
    fn now_v7_seed() -> u64 {
        Uuid::now_v7().as_u64_pair().1
    }
}

#[cfg(feature = "simulation")]
mod simulated {
    use super::{Timestamp, Uuid};
    use crate::random;
    use std::{
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    pub(super) struct World {
        /// `None` for a clock that only moves by hand.
        start: Option<tokio::time::Instant>,
        /// Microseconds by which it was moved by hand.
        moved: AtomicU64,
        random: AtomicU64,
        ids: AtomicU64,
    }

    /// The tasks of one simulated process.
    #[derive(Default)]
    pub(super) struct Node(Mutex<(bool, Vec<tokio::task::AbortHandle>)>);

    impl Node {
        pub(super) fn add(&self, task: tokio::task::AbortHandle) {
            let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if tasks.0 {
                // a dead process starts nothing
                task.abort();
            }
            tasks.1.retain(|task| !task.is_finished());
            tasks.1.push(task);
        }

        pub(super) fn kill(&self) {
            let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.0 = true;
            for task in tasks.1.drain(..) {
                task.abort();
            }
        }
    }

    /// 2026-01-01, so that ids and days look like real ones.
    const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

    impl World {
        #[allow(clippy::disallowed_methods, reason = "tokio's clock is the virtual one")]
        pub(super) fn new(seed: u64, manual: bool) -> Self {
            Self {
                start: (!manual).then(tokio::time::Instant::now),
                moved: AtomicU64::new(0),
                random: AtomicU64::new(random::number_at(seed)),
                ids: AtomicU64::new(0),
            }
        }

        pub(super) fn elapsed(&self) -> Duration {
            let flown = self.start.map_or(Duration::ZERO, |start| start.elapsed());
            flown + Duration::from_micros(self.moved.load(Ordering::Relaxed))
        }

        pub(super) fn advance(&self, by: Duration) {
            let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            self.moved.fetch_add(micros, Ordering::Relaxed);
        }

        pub(super) fn now(&self) -> Timestamp {
            Timestamp(EPOCH_MICROS).plus(self.elapsed())
        }

        pub(super) fn random(&self) -> u64 {
            random::next_shared(&self.random)
        }

        /// Version 7 by layout: virtual milliseconds, then a counter (so that ids increase), then seeded bits.
        pub(super) fn uuid(&self) -> Uuid {
            let millis = u128::from(self.now().0.unsigned_abs() / 1000);
            let counter = u128::from(self.ids.fetch_add(1, Ordering::Relaxed)) & 0xfff_ffff_ffff;
            let bits =
                (millis << 80) | (0x7 << 76) | ((counter >> 32) << 64) | (0b10 << 62) | ((counter & 0xffff_ffff) << 30);
            Uuid::from_u128(bits | u128::from(self.random() & 0x3fff_ffff))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_saturate() {
        assert_eq!(Timestamp(i64::MAX).plus(Duration::from_secs(1)), Timestamp(i64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        let time = std::time::UNIX_EPOCH + Duration::from_micros(1_234_567);
        assert_eq!(Timestamp::from(time).to_system_time(), time);
    }

    #[cfg(feature = "simulation")]
    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let runtime = Runtime::manual(7);
        let start = runtime.now();
        assert_eq!(runtime.now(), start);
        runtime.advance(Duration::from_secs(60));
        assert_eq!(runtime.now().since(start), Duration::from_secs(60));
        Runtime::system().advance(Duration::from_secs(60));
    }

    #[cfg(feature = "simulation")]
    #[tokio::test(start_paused = true)]
    async fn a_seed_repeats_itself_and_time_is_virtual() {
        let (one, two) = (Runtime::simulated(7), Runtime::simulated(7));
        assert_eq!(one.uuid(), two.uuid());
        assert_eq!(one.random(), two.random());
        let first = one.uuid();
        assert_eq!(first.get_version_num(), 7);
        one.sleep(Duration::from_secs(86_400 * 365)).await;
        assert!(one.elapsed() >= Duration::from_secs(86_400 * 365));
        assert!(one.uuid() > first);
    }
}
