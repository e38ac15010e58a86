//! What happens for some messages only, and for very many on a bad day: parked, put off, dead, timed out, ended.

use crate::{BATCH, usual::Load};
use sagabus_core::{
    CommitBatch, Disposition, Due, DueQuery, DueRow, Gate, InstanceId, Intent, LoadRequest, MessageId, Outcome,
    ParkedUntil, RowTable, SHARDS, SagaAddress, SagaChange, SagaLookup, SagaWrite, Store, TimerChange, TimerId,
    UnitOfWork,
};
use std::{sync::Arc, time::Duration};

const KIND: &str = "shop/rare";
const HOUR: Duration = Duration::from_secs(3600);

/// Runs `n` messages of each sort, and lets what they leave pile up before it goes.
pub(crate) async fn run(load: &Load, store: &dyn Store, n: usize) {
    let day = Day { load, store, n };
    day.all(|n| vec![day.parked(n.to_string())]).await;
    day.all(|n| vec![day.deferred(n), day.waiting(n), day.dead()]).await;
    // nothing but lines is due; whether a saga has come is asked of each
    day.look(RowTable::Parked).await;
    let instances: Vec<InstanceId> = (0..n).map(|_| InstanceId(load.runtime.uuid())).collect();
    let timers: Vec<TimerId> = (0..n).map(|_| TimerId(load.runtime.uuid())).collect();
    day.all(|n| vec![day.begun(n, instances[n], timers[n])]).await;
    day.by_alias().await;
    // again, under the same ids
    day.all(|n| vec![day.changed(n, instances[n], 1, vec![day.timer(n, instances[n], timers[n], HOUR)])]).await;
    day.all(|n| {
        let (kind, key) = (Arc::from(KIND), n.to_string());
        // the others are handled, or go with their sagas
        let cancel = match n % 2 {
            0 => TimerChange::CancelType { kind, key, instance: instances[n], message_type: "soon".into() },
            _ => TimerChange::Cancel { kind, key, id: timers[n] },
        };
        vec![day.changed(n, instances[n], 2, vec![cancel])]
    })
    .await;
    day.retry_the_dead().await;
    // for a saga by another name, which is there
    day.all(|n| vec![day.parked(format!("ref={n}"))]).await;
    // parked ones first: whether a line may go on is a question to the retries
    for table in [RowTable::Parked, RowTable::Timer, RowTable::Retry, RowTable::DeadLetter] {
        let taken = day.take(table).await;
        assert!(taken >= n / 2, "{taken} of {table:?}");
    }
    let end = |n| SagaChange::Complete { instance: instances[n], version: 3, keep: None };
    day.all(|n| vec![day.unit(None, Some(day.write(n, end(n))))]).await;
}

struct Day<'a> {
    load: &'a Load,
    store: &'a dyn Store,
    n: usize,
}

impl Day<'_> {
    /// Batches of them. One unit of each is stale, so that the store asks which one it was.
    async fn all(&self, units: impl Fn(usize) -> Vec<UnitOfWork>) {
        for from in (0..self.n).step_by(BATCH) {
            self.commit((from..(from + BATCH).min(self.n)).flat_map(&units).collect()).await;
        }
    }

    async fn commit(&self, mut units: Vec<UnitOfWork>) {
        let good = units.len();
        let nobody = SagaChange::Update {
            instance: InstanceId(self.load.runtime.uuid()),
            version: 1,
            state: "x".into(),
            schema: 1,
        };
        units.push(self.unit(None, Some(self.write(self.n, nobody))));
        let batch = CommitBatch { owner: self.load.owner.clone(), joined: false, units, sent: Vec::new() };
        let outcomes = self.store.commit(batch).await.outcomes;
        assert!(outcomes[..good].iter().all(Outcome::is_applied), "{outcomes:?}");
        assert!(matches!(outcomes[good], Outcome::Stale), "{:?}", outcomes[good]);
    }

    fn id(&self) -> MessageId {
        MessageId(self.load.runtime.uuid())
    }

    fn unit(&self, disposition: Option<Disposition>, saga: Option<SagaWrite>) -> UnitOfWork {
        let mut unit = UnitOfWork::new("rare".into(), self.id(), Gate::Inbox);
        unit.disposition = disposition.unwrap_or(Disposition::Handled);
        unit.saga = saga;
        unit
    }

    fn write(&self, n: usize, change: SagaChange) -> SagaWrite {
        SagaWrite { kind: KIND.into(), key: n.to_string(), change, aliases: Vec::new() }
    }

    fn park(&self, until: ParkedUntil) -> UnitOfWork {
        let message = Arc::new(self.load.message(Intent::Command));
        self.unit(Some(Disposition::Parked { message, attempts: 0, until }), None)
    }

    fn parked(&self, key: String) -> UnitOfWork {
        self.park(ParkedUntil::Saga { kind: KIND.into(), key, at_most: HOUR })
    }

    fn waiting(&self, n: usize) -> UnitOfWork {
        self.park(ParkedUntil::KeyUnblocked { key: format!("line {}", n % 10) })
    }

    fn deferred(&self, n: usize) -> UnitOfWork {
        let message = Arc::new(self.load.message(Intent::Command));
        let (key, delay, reason) = (Some(format!("key {n}")), Duration::ZERO, "handler failed".into());
        self.unit(Some(Disposition::Deferred { message, key, attempts: 1, delay, reason }), None)
    }

    fn dead(&self) -> UnitOfWork {
        let message = Arc::new(self.load.message(Intent::Command));
        self.unit(
            Some(Disposition::DeadLettered {
                message,
                attempts: 1,
                reason: "handler failed".into(),
                detail: Vec::new(),
            }),
            None,
        )
    }

    fn timer(&self, n: usize, instance: InstanceId, id: TimerId, after: Duration) -> TimerChange {
        let mut message = self.load.message(Intent::Timeout);
        message.headers.saga = Some(SagaAddress { kind: KIND.into(), key: n.to_string(), instance });
        message.headers.message_type = if after.is_zero() { "soon" } else { "late" }.into();
        TimerChange::Set { id, due: Due::After(after), message: Box::new(message) }
    }

    /// A new life, with an alias, a timeout that is due, and one that is not. Who was parked for it is due.
    fn begun(&self, n: usize, instance: InstanceId, timer: TimerId) -> UnitOfWork {
        let mut write = self.write(n, SagaChange::Create { instance, state: "x".into(), schema: 1, origin: None });
        write.aliases.push(("ref".into(), n.to_string()));
        let mut unit = self.unit(None, Some(write));
        let soon = TimerId(self.load.runtime.uuid());
        unit.timers = vec![self.timer(n, instance, soon, Duration::ZERO), self.timer(n, instance, timer, HOUR)];
        unit
    }

    fn changed(&self, n: usize, instance: InstanceId, version: i64, timers: Vec<TimerChange>) -> UnitOfWork {
        let change = SagaChange::Update { instance, version, state: "y".into(), schema: 1 };
        let mut unit = self.unit(None, Some(self.write(n, change)));
        unit.timers = timers;
        unit
    }

    async fn by_alias(&self) {
        for from in (0..self.n).step_by(BATCH) {
            let range = || from..(from + BATCH).min(self.n);
            let alias = |n: usize| SagaLookup::Alias { kind: KIND.into(), alias: "ref".into(), value: n.to_string() };
            let turns = range().map(|n| ("rare".into(), format!("key {}", 2 * n))).collect();
            let sagas = range().map(alias).collect();
            let request = LoadRequest { endpoint: "shop".into(), sagas, blocked_keys: turns, ..LoadRequest::default() };
            let loaded = self.store.load(request).await.expect("load");
            assert!(loaded.sagas.iter().all(Option::is_some));
        }
    }

    async fn retry_the_dead(&self) {
        let admin = self.store.admin();
        let (mut after, mut sent) = (0, 0);
        while sent < self.n as u64 {
            let page = admin.dead_letters("shop", after, BATCH).await.expect("dead letters");
            let ids: Vec<i64> = page.iter().filter(|letter| !letter.retrying).map(|letter| letter.id).collect();
            after = page.last().expect("a dead letter").id;
            sent += admin.retry_dead_letters("shop", &ids).await.expect("retry");
        }
    }

    /// What is due, until nothing is. A line goes one by one, so its first ones will do.
    async fn take(&self, table: RowTable) -> usize {
        let mut taken = 0;
        for _ in 0..=2 * self.n.div_ceil(BATCH) {
            let rows = self.look(table).await;
            taken += rows.len();
            let unit = |row: &DueRow| {
                let mut unit = UnitOfWork::new("rare".into(), row.message.headers.message_id, Gate::Row(row.gate));
                unit.has_attempt_row = true;
                unit
            };
            self.commit(rows.iter().map(unit).collect()).await;
        }
        taken
    }

    async fn look(&self, table: RowTable) -> Vec<DueRow> {
        let shards = (0..SHARDS).collect();
        let query = DueQuery { endpoint: "shop".into(), table, shards, after: None, limit: BATCH };
        self.store.due(&query).await.expect("due").rows
    }
}
