//! Messages whose saga does not exist (yet).

use crate::world::{World, messages};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Started "park.started"
    Patient "park.patient"
    Hasty "park.hasty"
    Buried "park.buried"
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
            .continued_by::<Buried>(|m| m.key.clone())
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
continued!(Patient Hasty Buried Dropped Scanned);

async fn seen(w: &World, key: &str) -> Vec<u64> {
    let row = w.admin().await.saga("shop/parcel", key).await.unwrap();
    row.map_or_else(Vec::new, |row| serde_json::from_slice::<Parcel>(&row.state).unwrap().seen)
}

async fn parked(w: &World) -> u64 {
    w.admin().await.counts().await.unwrap()["parked"]
}

pub(crate) async fn a_parked_message_is_adopted_when_its_saga_starts(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    for n in 1..=3 {
        shop.bus().send(Patient::new(w.run, "k", n)).await.unwrap();
    }
    w.eventually("parking", || async { shop.stats().parked == 3 }).await;
    assert_eq!(parked(w).await, 3);
    shop.bus().send(Started::new(w.run, "k", 0)).await.unwrap();
    w.eventually("adoption", || async { seen(w, "k").await.len() == 4 }).await;
    let mut all = seen(w, "k").await;
    assert_eq!(all[0], 0);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!((parked(w).await, shop.stats().dead), (0, 0));
}

pub(crate) async fn a_parked_message_is_buried_after_its_time(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Hasty::new(w.run, "k", 1)).await.unwrap();
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].handler.as_str(), letters[0].reason.as_str()), ("parcel", "saga not found"));
    assert_eq!((shop.stats().parked, parked(w).await), (1, 0));
    // when the saga is there, an operator can send it again
    shop.bus().send(Started::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the saga", || async { seen(w, "k").await == [0] }).await;
    assert_eq!(w.admin().await.retry_dead_letters("shop", &[letters[0].id]).await.unwrap(), 1);
    w.eventually("the retry", || async { seen(w, "k").await == [0, 1] }).await;
}

pub(crate) async fn not_found_policies_bury_or_discard(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Buried::new(w.run, "k", 1)).await.unwrap();
    shop.bus().send(Dropped::new(w.run, "k", 2)).await.unwrap();
    w.eventually("both", || async { shop.stats().dead == 1 && !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["saga-not-found"], 1);
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("there is no saga shop/parcel"), "{letters:?}");
    assert_eq!(shop.stats().parked, 0);
}

pub(crate) async fn an_alias_finds_its_saga(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    for key in ["a", "b"] {
        shop.bus().send(Started::new(w.run, key, 0)).await.unwrap();
    }
    w.eventually("both", || async { !seen(w, "a").await.is_empty() && !seen(w, "b").await.is_empty() }).await;
    shop.bus().send(Scanned::new(w.run, "label-b", 5)).await.unwrap();
    w.eventually("the scan", || async { seen(w, "b").await == [0, 5] }).await;
    assert_eq!(seen(w, "a").await, [0]);
    assert_eq!(shop.stats().parked, 0);
}

pub(crate) async fn a_message_is_parked_by_its_alias(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    shop.bus().send(Scanned::new(w.run, "label-k", 5)).await.unwrap();
    w.eventually("parking", || async { shop.stats().parked == 1 }).await;
    shop.bus().send(Started::new(w.run, "other", 0)).await.unwrap();
    w.eventually("another saga", || async { seen(w, "other").await == [0] }).await;
    assert_eq!(parked(w).await, 1, "another alias is not its alias");
    shop.bus().send(Started::new(w.run, "k", 0)).await.unwrap();
    w.eventually("adoption", || async { seen(w, "k").await == [0, 5] }).await;
    assert_eq!((parked(w).await, seen(w, "other").await), (0, vec![0]));
}

pub(crate) async fn a_parked_message_survives_a_restart(w: &World) {
    let first = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    first.bus().send(Patient::new(w.run, "k", 1)).await.unwrap();
    first.bus().send(Scanned::new(w.run, "label-k", 2)).await.unwrap();
    w.eventually("parking", || async { first.stats().parked == 2 }).await;
    first.stop().await.unwrap();
    let second = w.start(w.endpoint("shop").await.saga::<Parcel>()).await;
    second.bus().send(Started::new(w.run, "k", 0)).await.unwrap();
    w.eventually("adoption", || async { seen(w, "k").await.len() == 3 }).await;
    assert_eq!(parked(w).await, 0);
}
