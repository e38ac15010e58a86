//! What happens for nearly every message.

use crate::{BATCH, KIND, SAGAS};
use sagabus_core::{
    CommitBatch, Destination, Due, DueQuery, Envelope, Gate, Headers, InstanceId, Intent, LoadRequest, MessageId,
    Outgoing, Owner, RowGate, RowTable, Runtime, SHARDS, SagaChange, SagaLookup, SagaWrite, Store, TimerChange,
    TimerId, UnitOfWork,
};
use std::time::Duration;

pub(crate) struct Load {
    pub(crate) runtime: Runtime,
    pub(crate) owner: Owner,
    pub(crate) instances: Vec<InstanceId>,
}

impl Load {
    pub(crate) fn message(&self, intent: Intent) -> Envelope {
        let headers = Headers::new(MessageId(self.runtime.uuid()), "test", intent, self.runtime.now());
        Envelope::new(headers, vec![b'x'; 200])
    }

    pub(crate) async fn commit(&self, store: &dyn Store, joined: bool, units: Vec<UnitOfWork>) {
        let batch = CommitBatch { owner: self.owner.clone(), joined, units, sent: Vec::new() };
        let outcomes = store.commit(batch).await.outcomes;
        assert!(outcomes.iter().all(sagabus_core::Outcome::is_applied), "{outcomes:?}");
    }

    fn unit(&self, n: usize, change: SagaChange) -> UnitOfWork {
        let mut unit = UnitOfWork::new("order".into(), MessageId(self.runtime.uuid()), Gate::Inbox);
        unit.saga = Some(SagaWrite { kind: KIND.into(), key: format!("{n}"), change, aliases: Vec::new() });
        let timer = TimerChange::Set {
            id: TimerId(self.runtime.uuid()),
            due: Due::After(Duration::from_secs(3600)),
            message: Box::new(self.message(Intent::Timeout)),
        };
        unit.timers.push(timer);
        unit.sends.push(Outgoing { to: Destination::Queue("q".into()), message: self.message(Intent::Command) });
        unit
    }

    pub(crate) async fn create(&mut self, store: &dyn Store) {
        for from in (0..SAGAS).step_by(BATCH) {
            let mut units = Vec::new();
            for n in from..from + BATCH {
                let instance = InstanceId(self.runtime.uuid());
                self.instances.push(instance);
                units.push(
                    self.unit(n, SagaChange::Create { instance, state: vec![0; 200].into(), schema: 1, origin: None }),
                );
            }
            self.commit(store, from % (2 * BATCH) == 0, units).await;
        }
    }

    /// At once: the first one by itself, the others in one statement.
    pub(crate) async fn count(&self, store: &dyn Store, messages: &[MessageId]) {
        let counts = messages.iter().map(|message| store.count_attempt("shop", "order", *message));
        let counts = futures::future::join_all(counts).await;
        assert!(counts.iter().all(|count| count.as_ref().is_ok_and(|count| *count == 1)), "{counts:?}");
    }

    pub(crate) async fn idle(&self, store: &dyn Store) {
        let sagas = vec![SagaLookup::Key { kind: KIND.into(), key: "0".into() }];
        let request = LoadRequest { endpoint: "shop".into(), sagas, ..LoadRequest::default() };
        assert_eq!(store.load(request).await.expect("load").sagas, [None]);
        let change =
            SagaChange::Update { instance: InstanceId(self.runtime.uuid()), version: 1, state: "x".into(), schema: 1 };
        for joined in [true, false] {
            let units = vec![self.unit(0, change.clone())];
            let batch = CommitBatch { owner: self.owner.clone(), joined, units, sent: Vec::new() };
            assert!(matches!(store.commit(batch).await.outcomes[0], sagabus_core::Outcome::Stale));
        }
        let all: Vec<u16> = (0..SHARDS).collect();
        assert!(store.queues().expect("queues").read("q", &all, 0, 10).await.expect("read").is_empty());
        for table in RowTable::DUE {
            let query = DueQuery { endpoint: "shop".into(), table, shards: all.clone(), after: None, limit: 100 };
            store.due(&query).await.expect("due");
        }
        self.count(store, &[MessageId(self.runtime.uuid())]).await;
        store.outbox_own(&self.owner, sagabus_core::OutboxId(0), 10).await.expect("own");
        store.outbox_orphans(&self.owner, 10).await.expect("orphans");
    }

    pub(crate) async fn run(&self, store: &dyn Store) {
        let queues = store.queues().expect("queues");
        let all: Vec<u16> = (0..SHARDS).collect();
        let mut after = 0;
        for (round, from) in (0..SAGAS).step_by(BATCH).enumerate() {
            let range = from..from + BATCH;
            let sagas = range.clone().map(|n| SagaLookup::Key { kind: KIND.into(), key: format!("{n}") }).collect();
            let probes = range.clone().map(|_| ("order".into(), MessageId(self.runtime.uuid()))).collect();
            let request = LoadRequest {
                endpoint: "shop".into(),
                probes,
                sagas,
                blocked_keys: vec![("order".into(), "k".into())],
            };
            assert!(store.load(request).await.expect("load").sagas.iter().all(Option::is_some));
            let mut units: Vec<UnitOfWork> = range
                .map(|n| {
                    let instance = self.instances[n];
                    self.unit(n, SagaChange::Update { instance, version: 1, state: vec![1; 200].into(), schema: 1 })
                })
                .collect();
            let rows = queues.read("q", &all, after, BATCH).await.expect("read");
            for (unit, row) in units.iter_mut().zip(&rows) {
                unit.gate = Gate::Row(RowGate { table: RowTable::Queue, id: row.id, token: 0 });
                after = row.id;
            }
            let messages: Vec<MessageId> = units.iter().map(|unit| unit.message_id).collect();
            self.count(store, &messages).await;
            // half of the rows go with their messages, the others stay
            units.iter_mut().step_by(2).for_each(|unit| unit.has_attempt_row = true);
            self.commit(store, round % 2 == 0, units).await;
            for table in RowTable::DUE {
                let query = DueQuery { endpoint: "shop".into(), table, shards: all.clone(), after: None, limit: 100 };
                store.due(&query).await.expect("due");
            }
        }
    }
}
