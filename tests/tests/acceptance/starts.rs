//! Who starts a saga, and what a completed one leaves behind.

use crate::fixture::{Fixture, messages};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Begin "start.begin"
    BeginOnce "start.begin-once"
    BeginOrNothing "start.begin-or-nothing"
    Finish "start.finish"
    Tick "start.tick"
}

/// Kept for an hour after its end.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    seen: Vec<u64>,
}

impl Saga for Kept {
    const NAME: &'static str = "kept";
    const KEEP_COMPLETED: Option<Duration> = Some(Duration::from_secs(3600));
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Begin>(|m| m.key.clone())
            .started_by::<BeginOnce>(|m| m.key.clone())
            .on_existing(OnExisting::DeadLetter)
            .started_by::<BeginOrNothing>(|m| m.key.clone())
            .on_existing(OnExisting::Discard)
            .continued_by::<Finish>(|m| m.key.clone())
            .timeout::<Tick>();
    }
}

macro_rules! begins {
    ($($message:ident)+) => {
        $(impl Handle<$message> for Kept {
            async fn handle(&mut self, m: $message, ctx: &mut SagaContext) -> Result {
                self.seen.push(m.n);
                ctx.timeout(Duration::from_secs(3600), Tick::new(m.run, &m.key, m.n));
                Ok(())
            }
        })+
    };
}
begins!(Begin BeginOnce BeginOrNothing);

impl Handle<Finish> for Kept {
    async fn handle(&mut self, m: Finish, ctx: &mut SagaContext) -> Result {
        self.seen.push(m.n);
        ctx.complete();
        Ok(())
    }
}

impl Handle<Tick> for Kept {
    async fn handle(&mut self, _: Tick, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

/// What it has seen, and whether it is over.
async fn kept(f: &Fixture) -> (Vec<u64>, bool) {
    let row = f.admin().await.saga("shop/kept", "k").await.unwrap();
    row.map_or_else(Default::default, |row| (serde_json::from_slice::<Kept>(&row.state).unwrap().seen, row.completed))
}

pub(crate) async fn a_starter_of_a_running_saga_meets_its_policy(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Kept>()).await;
    let bus = shop.bus();
    bus.send(BeginOnce::new(f.run, "k", 1)).await.unwrap();
    f.eventually("the start", || async { kept(f).await.0 == [1] }).await;
    bus.send(Begin::new(f.run, "k", 2)).await.unwrap();
    bus.send(BeginOnce::new(f.run, "k", 3)).await.unwrap();
    bus.send(BeginOrNothing::new(f.run, "k", 4)).await.unwrap();
    f.eventually("all", || async { shop.stats().dead == 1 && !shop.stats().dropped.is_empty() }).await;
    f.eventually("the second", || async { kept(f).await.0 == [1, 2] }).await;
    assert_eq!(shop.stats().dropped["saga-exists"], 1);
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("exists already"), "{letters:?}");
}

pub(crate) async fn a_completed_saga_is_kept_and_takes_nothing(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Kept>()).await;
    let bus = shop.bus();
    bus.send(Begin::new(f.run, "k", 1)).await.unwrap();
    f.eventually("the start", || async { kept(f).await.0 == [1] }).await;
    bus.send(Finish::new(f.run, "k", 2)).await.unwrap();
    f.eventually("the end", || async { kept(f).await == (vec![1, 2], true) }).await;
    assert!(f.admin().await.timers("shop", None, 10).await.unwrap().is_empty());
    // it is over: no message waits for it to start
    bus.send(Finish::new(f.run, "k", 3)).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    assert_eq!(kept(f).await, (vec![1, 2], true));
    // a starter begins a new instance in its place, even one that starts only new ones
    bus.send(BeginOnce::new(f.run, "k", 4)).await.unwrap();
    f.eventually("the new instance", || async { kept(f).await == (vec![4], false) }).await;
    assert_eq!((shop.stats().dead, shop.stats().parked), (1, 0));
}
