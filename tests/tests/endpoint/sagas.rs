//! Lives of sagas: parking, timeouts, ends and new beginnings, aliases.

use crate::bed::{Bed, Seen, admin, eventually, start};
use sagabus::{NotFound, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;

macro_rules! messages {
    ($($type:ident = $name:literal),* $(,)?) => {
        $(
            #[derive(Message, Serialize, Deserialize)]
            #[message(name = $name)]
            struct $type {
                key: String,
            }
        )*
    };
}
messages! {
    Begin = "life.begin", Go = "life.go", Patient = "life.patient", Alarm = "life.alarm", Tracked = "life.tracked",
    End = "life.end", Strict = "life.strict",
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "life.rang")]
struct Rang {
    n: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Life {
    steps: u32,
}

impl Saga for Life {
    const NAME: &'static str = "life";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Begin>(|m| m.key.clone());
        r.continued_by::<Go>(|m| m.key.clone());
        r.continued_by::<Patient>(|m| m.key.clone()).on_not_found(NotFound::Park(Duration::from_millis(150)));
        r.continued_by::<Strict>(|m| m.key.clone()).on_not_found(NotFound::Discard);
        r.continued_by::<Alarm>(|m| m.key.clone());
        r.continued_by::<End>(|m| m.key.clone());
        r.continued_by_alias::<Tracked>("tracking", |m| m.key.clone());
        r.timeout::<Rang>();
    }
}

impl Life {
    fn step(&mut self, what: &str, ctx: &mut SagaContext) {
        self.steps += 1;
        let text = format!("{} {what} {}", ctx.saga_key(), self.steps);
        ctx.send(Seen(text));
    }
}

impl Handle<Begin> for Life {
    async fn handle(&mut self, m: Begin, ctx: &mut SagaContext) -> Result {
        ctx.alias("tracking", format!("track-{}", m.key));
        self.step("begin", ctx);
        Ok(())
    }
}

macro_rules! steps {
    ($($type:ident = $text:literal),*) => {
        $(
            impl Handle<$type> for Life {
                async fn handle(&mut self, _: $type, ctx: &mut SagaContext) -> Result {
                    self.step($text, ctx);
                    Ok(())
                }
            }
        )*
    };
}
steps!(Go = "go", Patient = "patient", Tracked = "tracked", Strict = "strict");

impl Handle<Alarm> for Life {
    async fn handle(&mut self, _: Alarm, ctx: &mut SagaContext) -> Result {
        let delay = Duration::from_millis(60);
        ctx.timeout(delay, Rang { n: 1 });
        ctx.timeout(delay, Rang { n: 2 });
        let wrong = ctx.timeout(delay, Rang { n: 3 });
        ctx.cancel_timeout(wrong);
        Ok(())
    }
}

/// The first to ring ends the life, so the second is late.
impl Handle<Rang> for Life {
    async fn handle(&mut self, m: Rang, ctx: &mut SagaContext) -> Result {
        assert!(m.n < 3, "cancelled");
        ctx.send(Seen("rang".into()));
        ctx.complete();
        Ok(())
    }
}

impl Handle<End> for Life {
    async fn handle(&mut self, _: End, ctx: &mut SagaContext) -> Result {
        self.step("end", ctx);
        ctx.complete();
        Ok(())
    }
}

fn key(key: &str) -> String {
    key.to_string()
}

async fn a_message_waits_for_its_saga(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Life>()).await;
    let bus = shop.bus();
    bus.send(Go { key: key("a") }).await.unwrap();
    eventually("it is parked", || async {
        if shop.stats().parked == 1 { Ok(()) } else { Err(format!("{:?}", shop.stats())) }
    })
    .await;
    assert!(bed.seen().is_empty());
    bus.send(Begin { key: key("b") }).await.unwrap();
    bed.expect(&shop, &["b begin 1"]).await;
    bus.send(Begin { key: key("a") }).await.unwrap();
    bed.expect(&shop, &["b begin 1", "a begin 1", "a go 2"]).await;
    assert_eq!(bed.counts(&shop).await["parked"], 0);
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn patience_ends_in_a_dead_letter_or_as_declared(bed: Bed) {
    let shop = start(bed.endpoint("shop").saga::<Life>()).await;
    shop.bus().send(Patient { key: key("nobody") }).await.unwrap();
    shop.bus().send(Strict { key: key("nobody") }).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert_eq!(letter.message.headers.message_type, "life.patient");
    assert!(letter.reason.contains("not found") || letter.reason.contains("no saga"), "{}", letter.reason);
    bed.quiet(&shop).await;
    assert_eq!(shop.stats().dropped.get("saga-not-found"), Some(&1), "{:?}", shop.stats());
    shop.stop().await.unwrap();
}

async fn a_timeout_takes_effect_once_and_a_late_one_never(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Life>()).await;
    shop.bus().send(Begin { key: key("a") }).await.unwrap();
    shop.bus().send(Alarm { key: key("a") }).await.unwrap();
    bed.expect(&shop, &["a begin 1", "rang"]).await;
    eventually("no timer is left", || async {
        let timers = admin(&shop).timers("shop", None, 10).await.map_err(|e| e.to_string())?;
        if timers.is_empty() { Ok(()) } else { Err(format!("{timers:?}")) }
    })
    .await;
    assert_eq!(bed.counts(&shop).await["saga"], 0);
    bed.expect(&shop, &["a begin 1", "rang"]).await;
    assert!(bed.dead_letters(&shop, "shop", 0).await.is_empty(), "a late timeout is no dead letter");
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_completed_saga_begins_anew(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Life>()).await;
    let bus = shop.bus();
    let mut instances = Vec::new();
    for round in 1..=3 {
        bus.send(Begin { key: key("a") }).await.unwrap();
        let saga = eventually("it lives", || async {
            admin(&shop).saga("shop/life", "a").await.map_err(|e| e.to_string())?.ok_or("no saga".to_string())
        })
        .await;
        instances.push(saga.instance);
        bus.send(End { key: key("a") }).await.unwrap();
        let expected: Vec<&str> = (0..round).flat_map(|_| ["a begin 1", "a end 2"]).collect();
        bed.expect(&shop, &expected).await;
    }
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), 3, "each life has its own id");
    assert_eq!(bed.counts(&shop).await["saga_alias"], 0, "aliases go with the life");
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_saga_is_found_by_its_alias(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Life>()).await;
    // the alias is not there yet: it waits for it
    shop.bus().send(Tracked { key: key("track-a") }).await.unwrap();
    shop.bus().send(Begin { key: key("a") }).await.unwrap();
    bed.expect(&shop, &["a begin 1", "a tracked 2"]).await;
    shop.bus().send(Tracked { key: key("track-a") }).await.unwrap();
    bed.expect(&shop, &["a begin 1", "a tracked 2", "a tracked 3"]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

on_every_backend!(
    a_message_waits_for_its_saga,
    patience_ends_in_a_dead_letter_or_as_declared,
    a_timeout_takes_effect_once_and_a_late_one_never,
    a_completed_saga_begins_anew,
    a_saga_is_found_by_its_alias,
);
