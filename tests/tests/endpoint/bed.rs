//! Where a test runs, and how it waits.

use crate::place::Place;
use sagabus::{
    Endpoint, EndpointBuilder, Message, Recoverability, RunningEndpoint,
    admin::{DeadLetter, StoreAdmin},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One test's own backends.
pub(crate) struct Bed {
    pub(crate) place: Arc<Place>,
    seen: Arc<Mutex<Vec<String>>>,
}

/// Sent by handlers to `recorder`, so that what is recorded is what was committed.
#[derive(Debug, Message, Serialize, Deserialize)]
#[message(name = "test.seen")]
pub(crate) struct Seen(pub(crate) String);

#[derive(Clone)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Consume<Seen> for Recorder {
    async fn consume(&self, message: Seen, _: &mut Context) -> Result {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.0);
        Ok(())
    }
}

impl Bed {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self { place, seen: Arc::default() }
    }

    /// The URL of the store.
    pub(crate) fn store(&self) -> String {
        self.place.url("shop")
    }

    /// The URL of the queues, where they are not the store's.
    fn bus(&self) -> String {
        self.place.url("bus")
    }

    pub(crate) fn is_split(&self) -> bool {
        self.place.is_split()
    }

    /// An endpoint on this bed, that retries quickly and gives up soon: two rounds of two tries.
    pub(crate) fn endpoint(&self, name: &str) -> EndpointBuilder {
        let builder = Endpoint::builder(name)
            .store(self.store())
            .lease(Duration::from_secs(2))
            .recoverability(Recoverability {
                immediate: 1,
                pause: Duration::from_millis(2),
                delays: vec![Duration::from_millis(30)],
                ..Recoverability::default()
            })
            .route::<Seen>("recorder");
        if self.is_split() { builder.transport(self.bus()) } else { builder }
    }

    /// Starts the endpoint that records.
    pub(crate) async fn recorder(&self) -> RunningEndpoint {
        let recorder = Recorder(self.seen.clone());
        let mut builder = Endpoint::builder("recorder").store(self.store()).service(recorder, |s| s.on::<Seen>());
        if self.is_split() {
            builder = builder.transport(self.bus());
        }
        builder.build().await.expect("build the recorder").start().await.expect("start the recorder")
    }

    /// The same with a store of its own, in memory; on the same queues, which must not be those of the store.
    pub(crate) async fn recorder_elsewhere(&self) -> RunningEndpoint {
        assert!(self.is_split());
        let recorder = Recorder(self.seen.clone());
        let builder = Endpoint::builder("recorder").store(format!("memory://{}", uuid::Uuid::now_v7()));
        start(builder.transport(self.bus()).service(recorder, |s| s.on::<Seen>())).await
    }

    /// Sends only, and needs no store for it.
    pub(crate) fn sender(&self) -> EndpointBuilder {
        assert!(self.is_split());
        Endpoint::builder("sender").transport(self.bus()).route::<Seen>("recorder")
    }

    /// What was recorded so far, sorted.
    pub(crate) fn seen(&self) -> Vec<String> {
        let mut seen = self.in_order();
        seen.sort();
        seen
    }

    /// What was recorded so far, in the order in which it came.
    pub(crate) fn in_order(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until exactly this was recorded, and nothing more comes while the rest of the work ends.
    pub(crate) async fn expect(&self, running: &RunningEndpoint, expected: &[&str]) {
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        eventually(&format!("{expected:?} is recorded"), || async {
            let seen = self.seen();
            if seen.len() >= expected.len() { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        self.quiet(running).await;
        assert_eq!(self.seen(), expected);
    }

    /// Waits until nothing is left to do: no queue row, no outbox row, nothing deferred, no unit in flight.
    pub(crate) async fn quiet(&self, running: &RunningEndpoint) {
        eventually("there is nothing left to do", || async {
            let counts = self.counts(running).await;
            let left: BTreeMap<_, _> = counts
                .into_iter()
                .filter(|(table, rows)| *rows > 0 && ["queue", "outbox", "retry"].contains(&table.as_str()))
                .collect();
            let busy = running.health().await.in_flight;
            if left.is_empty() && busy == 0 { Ok(()) } else { Err(format!("{left:?}, {busy} in flight")) }
        })
        .await;
    }

    pub(crate) async fn counts(&self, running: &RunningEndpoint) -> BTreeMap<String, u64> {
        admin(running).counts().await.expect("count rows")
    }

    /// Waits for so many dead letters of an endpoint.
    pub(crate) async fn dead_letters(
        &self,
        running: &RunningEndpoint,
        endpoint: &str,
        count: usize,
    ) -> Vec<DeadLetter> {
        let admin = admin(running);
        eventually(&format!("{endpoint} has {count} dead letters"), || async {
            let letters = admin.dead_letters(endpoint, 0, 100).await.map_err(|e| format!("{e:?}"))?;
            if letters.len() == count { Ok(letters) } else { Err(format!("{letters:?}")) }
        })
        .await
    }
}

pub(crate) fn admin(running: &RunningEndpoint) -> Arc<dyn StoreAdmin> {
    running.admin().expect("an endpoint with a store").store().clone()
}

/// Starts what was built.
pub(crate) async fn start(builder: EndpointBuilder) -> RunningEndpoint {
    builder.build().await.expect("build").start().await.expect("start")
}

/// Asks until the answer is Ok; after 20 seconds fails with the last answer. Nobody sleeps for luck.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = std::result::Result<T, String>>,
{
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if Instant::now() > deadline => panic!("not so: {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
