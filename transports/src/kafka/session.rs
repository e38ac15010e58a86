//! A receiver's thread: it reads, takes and gives up partitions, and writes down what is finished.

mod assigned;
mod commits;

use super::{
    committer::{Commit, Committer},
    decode::decode,
    error::failed,
    keeper::Keeper,
    lane::{Parcel, Place},
    receiver::{Phase, Shared},
    source::Source,
    watch::{Event, Watch},
};
use crate::lock;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Message},
    types::RDKafkaErrorCode as Code,
};
use sagabus_core::{Delivery, Error, ErrorKind, Position, Token};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The thread looks around this often, when nothing wakes it.
const IDLE: Duration = Duration::from_millis(25);

/// Read at most so many of a partition before the others, and everything else, are looked at.
const BURST: usize = 64;

/// Runs until the receiver is closed, or dropped.
pub(super) fn run(shared: Arc<Shared>, mut consumer: BaseConsumer<Watch>, keeper: Option<Keeper>) {
    let thread = std::thread::current();
    consumer.set_nonempty_callback(move || thread.unpark());
    let consumer = Arc::new(consumer);
    match Committer::start(Arc::clone(&consumer)) {
        Ok(committer) => Session::new(Arc::clone(&shared), consumer, committer, keeper).run(),
        Err(error) => shared.halt(error),
    }
}

struct Session {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Watch>>,
    committer: Committer,
    keeper: Option<Keeper>,
    /// What the store knows of those that are assigned, as far as it has answered; and which answers still count.
    claimed: HashMap<Place, Position>,
    claiming: bool,
    round: u64,
    doubts: u32,
    /// How many answers are due about what was raised.
    raising: u32,
    last_keep: Duration,
    sources: Vec<Source>,
    /// Assigned, and not taken over yet; not before this time. The group waits for an answer to an empty list, too.
    assigned: Option<Vec<Place>>,
    not_before: Duration,
    /// To be given up as soon as nothing of it is out and that is written down, or when the time is over.
    revoked: Option<Vec<Place>>,
    deadline: Duration,
    parted: bool,
    /// What is being written down.
    pending: Option<Vec<Commit>>,
    last_commit: Duration,
}

impl Session {
    fn new(
        shared: Arc<Shared>,
        consumer: Arc<BaseConsumer<Watch>>,
        committer: Committer,
        keeper: Option<Keeper>,
    ) -> Self {
        Self {
            shared,
            consumer,
            committer,
            keeper,
            claimed: HashMap::new(),
            claiming: false,
            round: 0,
            doubts: 0,
            raising: 0,
            last_keep: Duration::ZERO,
            sources: Vec::new(),
            assigned: None,
            not_before: Duration::ZERO,
            revoked: None,
            deadline: Duration::ZERO,
            parted: false,
            pending: None,
            last_commit: Duration::ZERO,
        }
    }

    fn run(mut self) {
        // a queue with one process has its partition from the start
        let places = lock(&self.shared.desk).places();
        if !places.is_empty() {
            self.read_all_of(&places);
        }
        let mut quiet = true;
        loop {
            match self.shared.phase() {
                Phase::Running => {}
                Phase::Closing => break self.finish(true),
                // a crash, as far as anybody can tell: what was settled was settled, the rest is suspect
                Phase::Dropped => break self.finish(false),
            }
            let read = self.read(quiet);
            quiet = !read;
            self.events();
            self.take_over();
            self.part();
            self.commit(false, false, true);
            if !read && !self.context().waiting() {
                std::thread::park_timeout(IDLE);
            }
        }
    }

    fn now(&self) -> Duration {
        self.shared.home.options.runtime.elapsed()
    }

    fn context(&self) -> Arc<Watch> {
        Arc::clone(self.consumer.context())
    }

    /// Reads these from their start, without a group.
    fn read_all_of(&mut self, places: &[Place]) {
        self.open(places);
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            // the only error is an offset that cannot be
            let _ = list.add_partition_offset(topic, *partition, Offset::Beginning);
        }
        if let Err(error) = self.consumer.assign(&list) {
            self.shared.halt(failed(format!("receive from {}", self.shared.queue), error));
        }
    }

    /// Has what is fetched of these wait in queues of their own.
    fn open(&mut self, places: &[Place]) {
        self.sources.retain(|source| !places.contains(&source.place));
        self.sources.extend(places.iter().filter_map(|place| Source::open(&self.consumer, place)));
    }

    /// Reads what there is, where there may be something or (`all`) everywhere. Answers whether there was anything.
    fn read(&mut self, all: bool) -> bool {
        let mut records = Vec::new();
        // the group's events, and what was fetched before its partition had a queue of its own
        while records.len() < BURST {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => records.push(self.parcel(&record)),
                Some(Err(error)) => self.trouble(error),
                None => break,
            }
        }
        let rooms: Vec<(&Source, usize)> = {
            let mut desk = lock(&self.shared.desk);
            let some = self.sources.iter().filter(|source| all || source.has_more());
            some.map(|source| (source, desk.room(&source.place))).filter(|(_, room)| *room > 0).collect()
        };
        for (source, room) in rooms {
            source.read(room.min(BURST), |record| match record {
                Ok(record) => records.push(self.parcel(&record)),
                Err(error) => self.trouble(error),
            });
        }
        if records.is_empty() {
            return false;
        }
        let mut desk = lock(&self.shared.desk);
        for (place, offset, parcel) in records {
            desk.push(&place, offset, parcel);
        }
        drop(desk);
        self.shared.arrived.notify_waiters();
        true
    }

    fn parcel(&self, record: &BorrowedMessage<'_>) -> (Place, i64, Parcel) {
        let topics = &self.shared.topics;
        let (topic, event) = match topics.get_key_value(record.topic()) {
            Some((topic, event)) => (Arc::clone(topic), event.as_deref()),
            None => (Arc::from(record.topic()), None),
        };
        let dated = record.timestamp().to_millis().is_some();
        let decoded = decode(record, event, &self.shared.home.options.runtime);
        let delivery = Delivery {
            message: Arc::new(decoded.message),
            defect: decoded.defect,
            token: Token { epoch: 0, position: 0 },
            gate: None,
            fence: None,
            suspect: false,
            anonymous: false,
        };
        ((topic, record.partition()), record.offset(), Parcel { delivery, size: record.payload_len() + 512, dated })
    }

    fn trouble(&self, error: KafkaError) {
        let queue = &self.shared.queue;
        match error.rdkafka_error_code() {
            // it goes on by itself, and health asks the cluster
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                tracing::debug!(queue, %error, "kafka is out of reach");
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.shared.halt(Error::with_source(
                ErrorKind::Backend,
                format!("receive from {queue}: the next messages were removed before they were read"),
                error,
            )),
            _ => {
                let error = failed(format!("receive from {queue}"), error);
                tracing::warn!(queue, ?error, "kafka cannot be read");
                self.shared.report(error);
            }
        }
    }

    fn events(&mut self) {
        let context = self.context();
        while let Some(event) = context.next() {
            match event {
                Event::Assigned(places) => self.assigned.get_or_insert_default().extend(places),
                Event::Revoked { places, lost: true } => {
                    tracing::warn!(
                        queue = self.shared.queue,
                        "this process was taken for dead: its partitions are lost"
                    );
                    // nobody waits for an answer to what was asked before
                    (self.revoked, self.assigned) = (None, None);
                    self.disclaim();
                    self.give_up(&places);
                }
                Event::Revoked { places, lost: false } => {
                    let mut desk = lock(&self.shared.desk);
                    places.iter().for_each(|place| desk.drain(place));
                    drop(desk);
                    self.deadline = self.now() + self.shared.home.options.drain_timeout;
                    self.revoked = Some(places);
                    self.parted = false;
                }
                Event::Committed(committed) => self.committed(committed),
                Event::Claimed { round, outcome } if round == self.round => self.claimed(outcome),
                // somebody else may have them now
                Event::Claimed { .. } => {}
                Event::Raised { what, outcome } => self.raised(&what, outcome),
            }
        }
    }

    /// Gives up what is to be given up once nothing of it is in flight, and that is written down; or the time is over.
    fn part(&mut self) {
        let Some(revoked) = &self.revoked else { return };
        let late = self.now() >= self.deadline;
        if self.pending.is_some() && !late {
            return;
        }
        if !self.parted && (late || lock(&self.shared.desk).drained(revoked)) {
            self.parted = true;
            self.commit(true, false, true);
            if self.pending.is_some() {
                return;
            }
        }
        if self.parted {
            if late {
                tracing::info!(queue = self.shared.queue, "handlers take longer than a partition waits for them");
            }
            let places = self.revoked.take().unwrap_or_default();
            self.give_up(&places);
        }
    }

    fn give_up(&mut self, places: &[Place]) {
        let mut desk = lock(&self.shared.desk);
        places.iter().for_each(|place| desk.forget(place));
        drop(desk);
        if let Some(assigned) = &mut self.assigned {
            assigned.retain(|place| !places.contains(place));
        }
        self.disclaim();
        self.sources.retain(|source| !places.contains(&source.place));
        let list = list_of(places);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(queue = self.shared.queue, %error, "there is nothing to give up");
        }
    }

    /// Writes down the last of it, and leaves the group.
    fn finish(mut self, clean: bool) {
        let deadline = self.now() + self.shared.patience();
        let mut told = false;
        while self.now() < deadline && !(told && self.pending.is_none() && (self.raising == 0 || !clean)) {
            // what is read now is nobody's, but answers come the same way
            if let Some(Err(error)) = self.consumer.poll(Duration::from_millis(10)) {
                self.trouble(error);
            }
            self.events();
            if !told && self.pending.is_none() {
                told = true;
                self.commit(true, clean, clean);
            }
        }
        let context = self.context();
        context.closing.store(true, Ordering::Release);
        let places = lock(&self.shared.desk).places();
        // the group may wait for an answer; whatever comes of it, the consumer is going away
        if let Some(owed) = self.revoked.take() {
            self.give_up(&owed);
        }
        if let Some(owed) = self.assigned.take() {
            let _ = self.consumer.incremental_assign(&list_of(&owed));
        }
        let mut desk = lock(&self.shared.desk);
        places.iter().for_each(|place| desk.forget(place));
        drop(desk);
        // they hold the consumer
        self.sources.clear();
        leave(&self.consumer, || self.now() < deadline + Duration::from_secs(5));
    }
}

/// Leaves the group. (The consumer's own drop would do that, but a commit that waits for an answer may still hold it.)
fn leave(consumer: &BaseConsumer<Watch>, patient: impl Fn() -> bool) {
    if let Err(error) = consumer.close_queue() {
        tracing::debug!(%error, "could not close a kafka consumer");
        return;
    }
    while !consumer.closed() && patient() {
        // what comes now is nobody's
        drop(consumer.poll(Duration::from_millis(20)));
    }
}

fn list_of(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
}
