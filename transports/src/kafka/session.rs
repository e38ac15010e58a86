//! A receiver's thread: reads records, takes partitions and gives them up, and commits what is finished.

mod assignment;
mod commits;
mod reading;
mod revocation;

use super::{
    commit::Commit,
    consumer_context::{Event, ReceiverContext},
    offset_committer::OffsetCommitter,
    offset_store_bridge::OffsetStoreBridge,
    partition_queue::PartitionQueue,
    shared::{Phase, ReceiverState},
    topic_partition::{TopicPartition, list_of},
};
use crate::lock;
use commits::CommitReason;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sagabus_core::Position;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long the thread sleeps when nothing wakes it.
const WAKE_INTERVAL: Duration = Duration::from_millis(25);

/// How long a clean end waits for the last commit.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an end waits for the group to be left, after the last commit.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the receiver is closed, or dropped.
pub(super) fn run(
    state: Arc<ReceiverState>,
    mut consumer: BaseConsumer<ReceiverContext>,
    bridge: Option<OffsetStoreBridge>,
) {
    let thread = std::thread::current();
    consumer.set_nonempty_callback(move || thread.unpark());
    let consumer = Arc::new(consumer);
    match OffsetCommitter::start(Arc::clone(&consumer)) {
        Ok(committer) => Session::new(Arc::clone(&state), consumer, committer, bridge).run(),
        Err(error) => state.halt(error),
    }
}

struct Session {
    state: Arc<ReceiverState>,
    consumer: Arc<BaseConsumer<ReceiverContext>>,
    committer: OffsetCommitter,
    bridge: Option<OffsetStoreBridge>,
    /// The store's positions of the assigned partitions, as far as it has answered.
    claimed: HashMap<TopicPartition, Position>,
    claiming: bool,
    /// The number of the claims whose answers count.
    claim_round: u64,
    /// How often the assigned partitions were refused.
    refusals: u32,
    /// How many answers are due about advanced positions.
    advances_pending: u32,
    last_advance: Duration,
    queues: Vec<PartitionQueue>,
    /// Assigned, and not taken over yet; not before this time. The group waits for an answer to an empty list, too.
    assigned: Option<Vec<TopicPartition>>,
    take_over_not_before: Duration,
    /// To be given up as soon as nothing of it is out and that is committed, or when the time is over.
    revoked: Option<Vec<TopicPartition>>,
    give_up_at: Duration,
    /// Whether the last commit of the revoked partitions was made.
    last_commit_made: bool,
    /// The commit that is under way.
    committing: Option<Vec<Commit>>,
    last_commit: Duration,
}

impl Session {
    fn new(
        state: Arc<ReceiverState>,
        consumer: Arc<BaseConsumer<ReceiverContext>>,
        committer: OffsetCommitter,
        bridge: Option<OffsetStoreBridge>,
    ) -> Self {
        Self {
            state,
            consumer,
            committer,
            bridge,
            claimed: HashMap::new(),
            claiming: false,
            claim_round: 0,
            refusals: 0,
            advances_pending: 0,
            last_advance: Duration::ZERO,
            queues: Vec::new(),
            assigned: None,
            take_over_not_before: Duration::ZERO,
            revoked: None,
            give_up_at: Duration::ZERO,
            last_commit_made: false,
            committing: None,
            last_commit: Duration::ZERO,
        }
    }

    fn run(mut self) {
        // a queue with one process has its partition from the start
        let partitions = lock(&self.state.in_flight).assigned();
        if !partitions.is_empty() {
            self.read_all_of(&partitions);
        }
        let mut read_everywhere = true;
        loop {
            match self.state.phase() {
                Phase::Running => {}
                Phase::Closing => break self.finish(true),
                // a crash, as far as anybody can tell: what was settled was settled, the rest is suspect
                Phase::Dropped => break self.finish(false),
            }
            let read = self.read(read_everywhere);
            read_everywhere = !read;
            self.handle_events();
            self.take_over();
            self.give_up_revoked();
            self.commit(CommitReason::Periodic);
            if !read && !self.context().has_events() {
                std::thread::park_timeout(WAKE_INTERVAL);
            }
        }
    }

    fn now(&self) -> Duration {
        self.state.cluster.options.runtime.elapsed()
    }

    fn context(&self) -> Arc<ReceiverContext> {
        Arc::clone(self.consumer.context())
    }

    fn handle_events(&mut self) {
        let context = self.context();
        while let Some(event) = context.next() {
            match event {
                Event::Assigned(partitions) => self.assigned.get_or_insert_default().extend(partitions),
                Event::Revoked { partitions, lost: true } => self.lose(&partitions),
                Event::Revoked { partitions, lost: false } => self.revoke(partitions),
                Event::Committed(outcome) => self.committed(outcome),
                Event::Claimed { round, outcome } if round == self.claim_round => self.claimed(outcome),
                // another process may have them now
                Event::Claimed { .. } => {}
                Event::Advanced { positions, outcome } => self.advanced(&positions, outcome),
            }
        }
    }

    /// Makes the last commit, and leaves the group.
    fn finish(mut self, clean: bool) {
        let deadline = self.now() + LAST_COMMIT_TIMEOUT;
        let mut told = false;
        while self.now() < deadline && !(told && self.committing.is_none() && (self.advances_pending == 0 || !clean)) {
            // records that are read now belong to no handler, but answers come the same way
            if let Some(Err(error)) = self.consumer.poll(Duration::from_millis(10)) {
                self.read_failed(error);
            }
            self.handle_events();
            if !told && self.committing.is_none() {
                told = true;
                self.commit(if clean { CommitReason::Closed } else { CommitReason::Dropped });
            }
        }
        let context = self.context();
        context.closing.store(true, Ordering::Release);
        let partitions = lock(&self.state.in_flight).assigned();
        // the group may wait for an answer; whatever comes of it, the consumer is going away
        if let Some(owed) = self.revoked.take() {
            self.give_up(&owed);
        }
        if let Some(owed) = self.assigned.take() {
            let _ = self.consumer.incremental_assign(&list_of(&owed));
        }
        self.forget(&partitions);
        // they hold the consumer
        self.queues.clear();
        leave_group(&self.consumer, || self.now() < deadline + LEAVE_TIMEOUT);
    }
}

/// Leaves the group. (The consumer's own drop would do that, but a commit that waits for an answer may still hold it.)
fn leave_group(consumer: &BaseConsumer<ReceiverContext>, in_time: impl Fn() -> bool) {
    if let Err(error) = consumer.close_queue() {
        tracing::debug!(%error, "could not close a kafka consumer");
        return;
    }
    while !consumer.closed() && in_time() {
        // records that come now belong to no handler
        drop(consumer.poll(Duration::from_millis(20)));
    }
}
