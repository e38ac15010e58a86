//! Random operations, from what the first store has shown so far.

use super::{
    ALIASES, ENDPOINTS, GROUPS, HANDLERS, KEYS, KINDS, QUEUES, TOPICS,
    dump::Asked,
    kind,
    messages::Messages,
    node,
    op::{Op, Planned},
    store_under_test::StoreUnderTest,
    units::Batch,
};
use crate::rng::Rng;
use sagabus_core::{
    LeaseRequest, LoadRequest, MessageId, Owner, RowTable, SHARDS, SagaAddress, SagaLookup, TimerId, Timestamp,
};
use std::{sync::Arc, time::Duration};

/// How long a node stays a member without another heartbeat: longer than any run.
const TTL: Duration = Duration::from_secs(86_400);
/// How many operations lie between two times of tidying up.
const ERA: u64 = 2000;

pub(super) struct Draw {
    pub(super) rng: Rng,
    pub(super) messages: Messages,
    /// Timers that were set, as far as they are remembered.
    pub(super) set: Vec<(TimerId, SagaAddress)>,
    /// How many rows of the first store were seen, and which of them no unit has had yet.
    seen: usize,
    rows: Vec<usize>,
    outbox_seen: usize,
    /// Outbox rows that nobody has confirmed or buried yet, and whose they are.
    outbox: Vec<(usize, Arc<str>)>,
    /// How many nodes each group had so far; the last one is a member.
    nodes: [u64; GROUPS.len()],
    drawn: u64,
}

impl Draw {
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        Self {
            rng: Rng::new(seed),
            messages: Messages::new(now),
            set: Vec::new(),
            seen: 0,
            rows: Vec::new(),
            outbox_seen: 0,
            outbox: Vec::new(),
            nodes: [0; GROUPS.len()],
            drawn: 0,
        }
    }

    /// What every run begins with: members, queues, subscriptions.
    pub(super) fn first(&mut self) -> Vec<Op> {
        let mut ops: Vec<Op> = QUEUES[..3].iter().map(|queue| Op::Declare((*queue).into())).collect();
        ops.push(Op::Subscribe("q1".into(), vec!["t1".into(), "t2".into()]));
        ops.push(Op::Subscribe("shop".into(), vec!["t1".into()]));
        for group in 0..GROUPS.len() {
            self.nodes[group] = 1;
            ops.push(Op::Heartbeat(self.request(group, 0)));
        }
        ops
    }

    pub(super) async fn next(&mut self, tested: &StoreUnderTest) -> Op {
        self.drawn += 1;
        if self.drawn.is_multiple_of(ERA) {
            self.messages.era += 1;
            self.rows.clear();
            return Op::Tidy;
        }
        self.rows.extend(std::mem::replace(&mut self.seen, tested.readings.len())..tested.readings.len());
        let sent = std::mem::replace(&mut self.outbox_seen, tested.outbox.len())..tested.outbox.len();
        self.outbox.extend(sent.map(|row| (row, tested.outbox_of[row].clone())));
        let endpoint: Arc<str> = self.rng.choose(&ENDPOINTS).into();
        match self.rng.index(1000) {
            0..430 => self.commit(tested, endpoint).await,
            430..480 => self.transaction(tested, endpoint).await,
            480..620 => self.due_op(tested, endpoint),
            620..710 => self.read(tested),
            710..770 => {
                Op::Enqueue((0..self.rng.count(20)).map(|_| self.messages.outgoing(&mut self.rng, false)).collect())
            }
            770..820 => self.load(endpoint),
            820..870 => {
                let message = self.messages.any(&mut self.rng, 80).headers.message_id;
                Op::CountAttempt { endpoint, handler: self.rng.choose(&HANDLERS).into(), message }
            }
            870..900 => self.delete(tested),
            900..940 => self.outbox_op(tested, endpoint),
            940..955 => self.members(),
            955..965 => self.subscription(),
            965..966 => Op::Prune(TTL),
            _ => self.operate(tested, endpoint),
        }
    }

    /// What a dump asks for.
    pub(super) fn asked(&self) -> Asked {
        let mut asked = Asked { nodes: self.nodes, ..Asked::default() };
        for handler in HANDLERS {
            let handler: Arc<str> = handler.into();
            let ids = self.messages.recent.iter().map(|message| message.headers.message_id);
            asked.probes.extend(ids.map(|id| (handler.clone(), id)));
            let numbers = (self.messages.era * 4).saturating_sub(4)..self.messages.era * 4 + 4;
            asked
                .turns
                .extend(numbers.flat_map(|n| ["o", "O", "\u{0}", "ö"].map(|o| (handler.clone(), format!("{o}-{n}")))));
        }
        asked
    }

    /// A row of this endpoint or of a queue that no unit has had yet. Old ones are forgotten: nobody would handle them.
    pub(super) fn pool_row(&mut self, tested: &StoreUnderTest, endpoint: &str) -> Option<usize> {
        let first = self.rows.len().saturating_sub(300);
        self.rows.drain(..first);
        let place = self.rng.index(self.rows.len());
        let ours = |row: &usize| tested.readings[*row].endpoint.as_deref().is_none_or(|own| own == endpoint);
        self.rows.get(place).is_some_and(ours).then(|| self.rows.swap_remove(place))
    }

    /// A row that was read at some time.
    pub(super) fn old_row(&mut self, tested: &StoreUnderTest, endpoint: &str) -> Option<usize> {
        let row = tested.readings.len().checked_sub(1 + self.rng.index(tested.readings.len().min(500)))?;
        tested.readings[row].endpoint.as_deref().is_none_or(|own| own == endpoint).then_some(row)
    }

    /// A fence that holds, mostly.
    pub(super) fn fence(&mut self, tested: &StoreUnderTest) -> Option<usize> {
        let back = if self.rng.percent(70) { 60 } else { 300 };
        tested.fences.len().checked_sub(1 + self.rng.index(tested.fences.len().min(back)))
    }

    pub(super) fn remember(&mut self, id: TimerId, saga: SagaAddress) {
        if self.set.len() >= 200 {
            self.set.remove(0);
        }
        self.set.push((id, saga));
    }

    /// The member, or now and then one that has left: a process that was paused.
    fn owner(&mut self, endpoint: Arc<str>) -> Owner {
        let group = ENDPOINTS.iter().position(|name| **name == *endpoint).unwrap_or(0);
        let back = if self.rng.percent(8) { 2 } else { 1 };
        Owner { endpoint, node: node(group, self.nodes[group].saturating_sub(back)) }
    }

    async fn commit(&mut self, tested: &StoreUnderTest, endpoint: Arc<str>) -> Op {
        let (owner, joined) = (self.owner(endpoint.clone()), self.rng.percent(50));
        if self.rng.percent(2)
            && let Some(unit) = self.again()
        {
            return Op::Commit { owner, joined, units: vec![unit], sent: Vec::new() };
        }
        let (mut batch, mut units) = (Batch::default(), Vec::new());
        for _ in 0..self.rng.count(80) {
            units.extend(self.unit(tested, &mut batch, &endpoint).await);
        }
        let sent = if self.rng.percent(30) { self.some_outbox(8) } else { Vec::new() };
        units.iter_mut().filter(|_| !sent.is_empty()).for_each(Planned::unkeyed);
        Op::Commit { owner, joined, units, sent }
    }

    async fn transaction(&mut self, tested: &StoreUnderTest, endpoint: Arc<str>) -> Op {
        let (owner, joined) = (self.owner(endpoint.clone()), self.rng.percent(50));
        let mut enlisted = Vec::new();
        if self.rng.percent(40) {
            enlisted.extend((0..self.rng.count(5)).map(|_| self.messages.outgoing(&mut self.rng, false)));
        }
        let unit = if self.rng.percent(85) { self.unit(tested, &mut Batch::default(), &endpoint).await } else { None };
        let sent = if self.rng.percent(20) { self.some_outbox(3) } else { Vec::new() };
        let mut unit = unit.map(Box::new);
        unit.iter_mut().filter(|_| !sent.is_empty()).for_each(|unit| unit.unkeyed());
        Op::Transaction { owner, joined, enlisted, unit, sent }
    }

    fn due_op(&mut self, tested: &StoreUnderTest, endpoint: Arc<str>) -> Op {
        let table = self.rng.choose(&RowTable::DUE);
        let paged = matches!(table, RowTable::Timer | RowTable::Retry);
        let fits = |row: &usize| paged && tested.gates.name(*row).table == table;
        let after = if self.rng.percent(10) { self.old_row(tested, &endpoint).filter(fits) } else { None };
        let limit = if self.rng.percent(30) { 1 + self.rng.index(5) } else { 30 };
        Op::Due { endpoint, table, shards: self.shards(), after, limit }
    }

    fn shards(&mut self) -> Vec<u16> {
        if self.rng.percent(75) {
            return (0..SHARDS).collect();
        }
        (0..SHARDS).filter(|_| self.rng.percent(50)).collect()
    }

    fn read(&mut self, tested: &StoreUnderTest) -> Op {
        let queue: String = self.rng.choose(&QUEUES).into();
        if self.rng.percent(15) {
            return Op::Depth(queue);
        }
        let queued = |row: &usize| tested.readings[*row].queue.as_ref() == Some(&queue);
        let after = if self.rng.percent(20) { self.old_row(tested, "").filter(queued) } else { None };
        Op::Read { queue, shards: self.shards(), after, limit: 1 + self.rng.index(40) }
    }

    fn delete(&mut self, tested: &StoreUnderTest) -> Op {
        let queue: String = self.rng.choose(&QUEUES).into();
        let mut rows = Vec::new();
        for _ in 0..1 + self.rng.index(20) {
            let row = if self.rng.percent(85) { self.pool_row(tested, "") } else { self.old_row(tested, "") };
            rows.extend(row.filter(|row| tested.gates.name(*row).table == RowTable::Queue));
        }
        Op::Delete { queue, rows }
    }

    fn load(&mut self, endpoint: Arc<str>) -> Op {
        let mut request = LoadRequest { endpoint: endpoint.clone(), ..LoadRequest::default() };
        for _ in 0..self.rng.count(30) {
            let saga: Arc<str> = kind(&endpoint, self.rng.choose(&KINDS)).into();
            let message: MessageId = self.messages.any(&mut self.rng, 90).headers.message_id;
            match self.rng.index(5) {
                0 | 1 => request.probes.push((self.rng.choose(&HANDLERS).into(), message)),
                2 => request
                    .blocked_keys
                    .push((self.rng.choose(&HANDLERS).into(), self.messages.order_key(&mut self.rng))),
                3 => request.sagas.push(SagaLookup::Key { kind: saga, key: self.rng.choose(&KEYS).into() }),
                _ => request.sagas.push(SagaLookup::Alias {
                    kind: saga,
                    alias: self.rng.choose(&ALIASES).into(),
                    value: self.rng.choose(&KEYS).into(),
                }),
            }
            if self.rng.percent(10) && !self.set.is_empty() {
                let saga = self.set[self.rng.index(self.set.len())].1.clone();
                request.sagas.push(SagaLookup::Instance(saga));
            }
        }
        Op::Load(request)
    }

    /// Outbox rows that nobody has confirmed yet, and now and then one that somebody has.
    fn some_outbox(&mut self, most: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = Vec::new();
        for _ in 0..1 + self.rng.index(most) {
            if self.rng.percent(5) && self.outbox_seen > 0 {
                rows.push(self.rng.index(self.outbox_seen));
            } else if !self.outbox.is_empty() {
                rows.push(self.outbox.swap_remove(self.rng.index(self.outbox.len())).0);
            }
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn outbox_op(&mut self, tested: &StoreUnderTest, endpoint: Arc<str>) -> Op {
        let owner = self.owner(endpoint);
        let limit = 1 + self.rng.index(40);
        match self.rng.index(10) {
            0..4 => {
                let after = self.rng.percent(50).then(|| self.rng.index(tested.outbox.len()));
                Op::OutboxOwn { owner, after: after.filter(|_| tested.outbox.len() > 0), limit }
            }
            4..6 => Op::OutboxOrphans { owner, limit },
            6 => {
                let ours = (0..self.outbox.len()).filter(|place| self.outbox[*place].1 == owner.endpoint);
                let mut places: Vec<usize> = ours.take(1 + self.rng.index(3)).collect();
                places.reverse();
                let rows = places.into_iter().map(|place| self.outbox.swap_remove(place).0);
                let rows = rows.map(|row| (row, "nobody there \u{0}".to_owned())).collect();
                Op::OutboxBury { owner, rows }
            }
            _ => Op::OutboxDelete(self.some_outbox(60)),
        }
    }

    fn request(&self, group: usize, n: u64) -> LeaseRequest {
        LeaseRequest { group: GROUPS[group].into(), node: node(group, n), ttl: TTL, shards: true, release: Vec::new() }
    }

    /// One member per group wants the shards: how several share them is for each store to say.
    fn members(&mut self) -> Op {
        let group = self.rng.index(GROUPS.len());
        let last = self.nodes[group].saturating_sub(1);
        if self.rng.percent(60) {
            let mut request = self.request(group, last);
            request.release = (0..self.rng.index(3)).map(|_| self.rng.index(32) as u16).collect();
            return Op::Heartbeat(request);
        }
        self.nodes[group] += 1;
        Op::Restart { old: self.request(group, last), new: self.request(group, last + 1) }
    }

    fn subscription(&mut self) -> Op {
        let queue: String = self.rng.choose(&QUEUES[..3]).into();
        if self.rng.percent(30) {
            return Op::Declare(queue);
        }
        let topics = TOPICS[..3].iter().filter(|_| self.rng.percent(50)).map(|topic| (*topic).to_owned()).collect();
        Op::Subscribe(queue, topics)
    }

    /// What somebody does from outside.
    fn operate(&mut self, tested: &StoreUnderTest, endpoint: Arc<str>) -> Op {
        let limit = 1 + self.rng.index(30);
        let dead: Vec<usize> = match tested.dead.len() {
            0 => Vec::new(),
            count => (0..1 + self.rng.index(6)).map(|_| count - 1 - self.rng.index(count.min(60))).collect(),
        };
        let timer = (!self.set.is_empty()).then(|| self.set[self.rng.index(self.set.len())].0);
        match (self.rng.index(10), timer) {
            (0, Some(id)) => Op::CancelTimer { endpoint, id },
            (1 | 2, Some(id)) => {
                let due = if self.rng.percent(70) {
                    self.past()
                } else {
                    Timestamp(4_102_444_800_000_000 + self.rng.index(1_000_000_000) as i64)
                };
                Op::MoveTimer { endpoint, id, due }
            }
            (3, _) => Op::Timers { endpoint, limit },
            (4 | 5, _) => Op::RetryDead { endpoint, rows: dead },
            (6, _) => Op::DiscardDead { endpoint, rows: dead },
            (7, _) => {
                let after = if self.rng.percent(70) { "" } else { self.rng.choose(&KEYS) };
                Op::SagaKeys { kind: kind(&endpoint, self.rng.choose(&KINDS)), after: after.into(), limit }
            }
            _ => Op::DeadLetters { endpoint, limit },
        }
    }
}
