//! Messages whose saga does not exist (yet).

use crate::fixture::{Fixture, messages};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Started "park.started"
    Patient "park.patient"
    Hasty "park.hasty"
    Refused "park.refused"
    Dropped "park.dropped"
    Scanned "park.scanned"
}

#[derive(Default, Serialize, Deserialize)]
struct Parcel {
    seen: Vec<u64>,
}

impl Saga for Parcel {
    const NAME: &'static str = "parcel";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Started>(|m| m.key.clone())
            .continued_by::<Patient>(|m| m.key.clone())
            .continued_by::<Hasty>(|m| m.key.clone())
            .on_not_found(NotFound::Park(Duration::from_millis(50)))
            .continued_by::<Refused>(|m| m.key.clone())
            .on_not_found(NotFound::DeadLetter)
            .continued_by::<Dropped>(|m| m.key.clone())
            .on_not_found(NotFound::Discard)
            .continued_by_alias::<Scanned>("label", |m| m.key.clone());
    }
}

impl Handle<Started> for Parcel {
    async fn handle(&mut self, m: Started, ctx: &mut SagaContext) -> Result {
        assert!(ctx.is_new());
        ctx.alias("label", format!("label-{}", m.key));
        self.seen.push(m.n);
        Ok(())
    }
}

macro_rules! continued {
    ($($message:ident)+) => {
        $(impl Handle<$message> for Parcel {
            async fn handle(&mut self, m: $message, _: &mut SagaContext) -> Result {
                self.seen.push(m.n);
                Ok(())
            }
        })+
    };
}
continued!(Patient Hasty Refused Dropped Scanned);

async fn seen(f: &Fixture, key: &str) -> Vec<u64> {
    let row = f.admin().await.saga("shop/parcel", key).await.unwrap();
    row.map_or_else(Vec::new, |row| serde_json::from_slice::<Parcel>(&row.state).unwrap().seen)
}

async fn parked(f: &Fixture) -> u64 {
    f.admin().await.counts().await.unwrap()["parked"]
}

pub(crate) async fn a_parked_message_is_adopted_when_its_saga_starts(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    for n in 1..=3 {
        shop.bus().send(Patient::new(f.run, "k", n)).await.unwrap();
    }
    f.eventually("parking", || async { shop.stats().parked == 3 }).await;
    shop.bus().send(Started::new(f.run, "another", 0)).await.unwrap();
    f.eventually("another saga", || async { seen(f, "another").await == [0] }).await;
    assert_eq!(parked(f).await, 3);
    shop.bus().send(Started::new(f.run, "k", 0)).await.unwrap();
    f.eventually("adoption", || async { seen(f, "k").await.len() == 4 }).await;
    let mut all = seen(f, "k").await;
    assert_eq!(all[0], 0);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!((parked(f).await, shop.stats().dead), (0, 0));
}

pub(crate) async fn a_parked_message_is_dead_lettered_after_its_time(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Hasty::new(f.run, "k", 1)).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].handler.as_str(), letters[0].reason.as_str()), ("parcel", "saga not found"));
    assert_eq!(letters[0].message.headers.message_type, "park.hasty");
    assert_eq!((shop.stats().parked, parked(f).await), (1, 0));
    // when the saga is there, an operator can send it again
    shop.bus().send(Started::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the saga", || async { seen(f, "k").await == [0] }).await;
    assert_eq!(f.admin().await.retry_dead_letters("shop", &[letters[0].id]).await.unwrap(), 1);
    f.eventually("the retry", || async { seen(f, "k").await == [0, 1] }).await;
}

pub(crate) async fn not_found_policies_dead_letter_or_discard(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Refused::new(f.run, "k", 1)).await.unwrap();
    shop.bus().send(Dropped::new(f.run, "k", 2)).await.unwrap();
    f.eventually("both", || async { shop.stats().dead == 1 && !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["saga-not-found"], 1);
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("there is no saga shop/parcel"), "{letters:?}");
    assert_eq!(shop.stats().parked, 0);
}

pub(crate) async fn an_alias_finds_its_saga(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    for key in ["a", "b"] {
        shop.bus().send(Started::new(f.run, key, 0)).await.unwrap();
    }
    f.eventually("both", || async { !seen(f, "a").await.is_empty() && !seen(f, "b").await.is_empty() }).await;
    shop.bus().send(Scanned::new(f.run, "label-b", 5)).await.unwrap();
    f.eventually("the scan", || async { seen(f, "b").await == [0, 5] }).await;
    assert_eq!(seen(f, "a").await, [0]);
    assert_eq!(shop.stats().parked, 0);
}

pub(crate) async fn a_message_is_parked_by_its_alias(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Scanned::new(f.run, "label-k", 5)).await.unwrap();
    f.eventually("parking", || async { shop.stats().parked == 1 }).await;
    shop.bus().send(Started::new(f.run, "other", 0)).await.unwrap();
    f.eventually("another saga", || async { seen(f, "other").await == [0] }).await;
    assert_eq!(parked(f).await, 1, "another alias is not its alias");
    shop.bus().send(Started::new(f.run, "k", 0)).await.unwrap();
    f.eventually("adoption", || async { seen(f, "k").await == [0, 5] }).await;
    assert_eq!((parked(f).await, seen(f, "other").await), (0, vec![0]));
}

pub(crate) async fn a_parked_message_survives_a_restart(f: &Fixture) {
    let first = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    first.bus().send(Patient::new(f.run, "k", 1)).await.unwrap();
    first.bus().send(Scanned::new(f.run, "label-k", 2)).await.unwrap();
    f.eventually("parking", || async { first.stats().parked == 2 }).await;
    first.stop().await.unwrap();
    let second = f.start(f.endpoint("shop").await.saga::<Parcel>()).await;
    second.bus().send(Started::new(f.run, "k", 0)).await.unwrap();
    f.eventually("adoption", || async { seen(f, "k").await.len() == 3 }).await;
    assert_eq!(parked(f).await, 0);
}
