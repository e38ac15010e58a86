//! Timeouts of sagas.

use crate::fixture::{Fixture, messages, policy};
use sagabus::{
    admin::{Cursor, TimerId},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Open "time.open"
    Close "time.close"
    Cancel "time.cancel"
    Due "time.due"
    Later "time.later"
    Twice "time.twice"
    Ring "time.ring"
}

const HOUR: Duration = Duration::from_secs(3600);

/// Opened with a number of milliseconds, after which it is due.
#[derive(Default, Serialize, Deserialize)]
struct Shop {
    opened: u64,
    due: u64,
    timer: Option<TimerId>,
}

impl Saga for Shop {
    const NAME: &'static str = "shop";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Open>(|m| m.key.clone())
            .continued_by::<Close>(|m| m.key.clone())
            .continued_by::<Cancel>(|m| m.key.clone())
            .continued_by_alias::<Twice>("label", |m| m.key.clone())
            .timeout::<Due>()
            .timeout::<Ring>()
            .timeout::<Later>();
    }
}

impl Handle<Open> for Shop {
    async fn handle(&mut self, m: Open, ctx: &mut SagaContext) -> Result {
        self.opened += 1;
        ctx.alias("label", format!("label-{}", m.key));
        m.run.note(format!("opened {}", ctx.instance()));
        m.run.note("opened");
        self.timer = Some(ctx.timeout(Duration::from_millis(m.n), Due::new(m.run, &m.key, m.n)));
        Ok(())
    }
}

impl Handle<Close> for Shop {
    async fn handle(&mut self, m: Close, ctx: &mut SagaContext) -> Result {
        m.run.note("closed");
        ctx.complete();
        Ok(())
    }
}

impl Handle<Cancel> for Shop {
    async fn handle(&mut self, m: Cancel, ctx: &mut SagaContext) -> Result {
        match (self.timer.take(), m.n) {
            (Some(timer), 0) => ctx.cancel_timeout(timer),
            _ => ctx.cancel_timeouts::<Due>(),
        }
        // at a moment that has passed: as soon as this is committed
        ctx.timeout_at(std::time::SystemTime::now(), Later::new(m.run, &m.key, 0));
        Ok(())
    }
}

impl Handle<Due> for Shop {
    async fn handle(&mut self, m: Due, _: &mut SagaContext) -> Result {
        m.run.note("due");
        if m.run.is("broken") {
            return Err(HandlerError::new("not today"));
        }
        self.due += 1;
        Ok(())
    }
}

impl Handle<Later> for Shop {
    async fn handle(&mut self, m: Later, _: &mut SagaContext) -> Result {
        m.run.note("later");
        Ok(())
    }
}

impl Handle<Twice> for Shop {
    async fn handle(&mut self, m: Twice, ctx: &mut SagaContext) -> Result {
        let ring = |n| Ring::new(m.run, &m.key, n);
        ctx.timeout(Duration::from_millis(60), ring(1));
        ctx.timeout(Duration::from_millis(60), ring(2));
        let wrong = ctx.timeout(Duration::from_millis(60), ring(3));
        ctx.cancel_timeout(wrong);
        Ok(())
    }
}

/// The first to ring completes the saga, so that the second is late.
impl Handle<Ring> for Shop {
    async fn handle(&mut self, m: Ring, ctx: &mut SagaContext) -> Result {
        m.run.note("rang");
        assert!(m.n < 3, "cancelled");
        ctx.complete();
        Ok(())
    }
}

async fn state(f: &Fixture, key: &str) -> Option<Shop> {
    let row = f.admin().await.saga("shop/shop", key).await.unwrap();
    row.map(|row| serde_json::from_slice(&row.state).unwrap())
}

pub(crate) async fn a_late_timeout_is_dropped_and_counted(f: &Fixture) {
    // its handler fails, so that it waits for its retry while its saga ends: this one, or on a busy machine the next
    f.run.raise("broken");
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>().recoverability(policy(0, &[300; 100]))).await;
    shop.bus().send(Open::new(f.run, "k", 1)).await.unwrap();
    f.eventually("the failure", || async { shop.stats().deferred >= 1 }).await;
    shop.bus().send(Close::new(f.run, "k", 0)).await.unwrap();
    f.noted("closed", 1).await;
    // nor does a new instance under the same key get it
    shop.bus().send(Open::new(f.run, "k", 3_600_000)).await.unwrap();
    f.eventually("the drop", || async { !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["late-timeout"], 1);
    let runs = f.run.notes();
    let closed = runs.iter().position(|note| note == "closed").unwrap();
    assert!(!runs[closed..].contains(&"due".into()), "{runs:?}");
    f.eventually("the new instance", || async { state(f, "k").await.is_some() }).await;
    assert_eq!(state(f, "k").await.unwrap().due, 0);
}

pub(crate) async fn a_cancelled_timeout_never_fires(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    for (key, how) in [("by id", 0), ("by type", 1)] {
        shop.bus().send(Open::new(f.run, key, 2_000)).await.unwrap();
        shop.bus().send(Cancel::new(f.run, key, how)).await.unwrap();
    }
    // one that is due after them shows that their moment has passed
    f.noted("later", 2).await;
    f.eventually("no timer", || async { f.admin().await.timers("shop", None, 10).await.unwrap().is_empty() }).await;
    shop.bus().send(Open::new(f.run, "marker", 2_000)).await.unwrap();
    f.eventually("the marker", || async { state(f, "marker").await.is_some_and(|s| s.due == 1) }).await;
    assert_eq!(f.run.count("due"), 1);
    assert_eq!((state(f, "by id").await.unwrap().due, state(f, "by type").await.unwrap().due), (0, 0));
}

pub(crate) async fn a_timeout_is_moved_by_the_admin(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    shop.bus().send(Open::new(f.run, "moved", 3_600_000)).await.unwrap();
    shop.bus().send(Open::new(f.run, "cancelled", 7_200_000)).await.unwrap();
    let admin = shop.admin().unwrap();
    f.eventually("both timers", || async { admin.timers(&Cursor::start(), 10).await.unwrap().items.len() == 2 }).await;
    let timers = admin.timers(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(timers[0].message_type, "time.due");
    assert_eq!(timers[0].saga.as_ref().unwrap().key, "moved");
    let now = sagabus::Timestamp::from(std::time::SystemTime::now());
    assert!(timers[0].due > now && timers[0].due <= now.plus(HOUR), "{timers:?}");
    assert!(admin.cancel_timer(timers[1].id).await.unwrap());
    assert!(!admin.cancel_timer(timers[1].id).await.unwrap());
    assert!(admin.move_timer(timers[0].id, now).await.unwrap());
    f.eventually("the timeout", || async { state(f, "moved").await.unwrap().due == 1 }).await;
    assert!(!admin.move_timer(timers[0].id, now).await.unwrap(), "it has taken effect");
    assert!(admin.timers(&Cursor::start(), 10).await.unwrap().items.is_empty());
    assert_eq!(f.run.count("due"), 1);
}

pub(crate) async fn a_timer_of_an_earlier_instance_is_harmless(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    shop.bus().send(Open::new(f.run, "k", 2_000)).await.unwrap();
    f.noted("opened", 1).await;
    shop.bus().send(Close::new(f.run, "k", 0)).await.unwrap();
    f.noted("closed", 1).await;
    shop.bus().send(Open::new(f.run, "k", 3_600_000)).await.unwrap();
    f.noted("opened", 2).await;
    shop.bus().send(Open::new(f.run, "marker", 2_100)).await.unwrap();
    f.eventually("the marker", || async { state(f, "marker").await.is_some_and(|s| s.due == 1) }).await;
    assert_eq!(state(f, "k").await.unwrap().due, 0);
    assert_eq!(f.run.count("due"), 1, "only the marker's");
}

pub(crate) async fn a_completed_saga_starts_anew(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    for n in 1..=3 {
        shop.bus().send(Open::new(f.run, "k", 3_600_000)).await.unwrap();
        f.noted("opened", n).await;
        f.eventually("the row", || async { state(f, "k").await.is_some_and(|s| s.opened == 1) }).await;
        shop.bus().send(Close::new(f.run, "k", 0)).await.unwrap();
        f.eventually("its end", || async { state(f, "k").await.is_none() }).await;
        assert!(f.admin().await.timers("shop", None, 10).await.unwrap().is_empty(), "its timeouts went with it");
        assert_eq!(f.admin().await.counts().await.unwrap()["saga_alias"], 0, "and its aliases");
    }
    let mut instances: Vec<_> = f.run.notes().into_iter().filter(|note| note.starts_with("opened ")).collect();
    instances.dedup();
    assert_eq!(instances.len(), 3, "{instances:?}");
}

pub(crate) async fn a_timeout_comes_due_while_no_instance_runs(f: &Fixture) {
    let first = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    first.bus().send(Open::new(f.run, "k", 3_600_000)).await.unwrap();
    f.eventually("the timer", || async { f.admin().await.counts().await.unwrap()["timer"] == 1 }).await;
    first.stop().await.unwrap();
    // moved only now, so that it cannot be due before the stop
    let timer = f.admin().await.timers("shop", None, 1).await.unwrap().remove(0);
    let now = || sagabus::Timestamp::from(std::time::SystemTime::now());
    let due = now().plus(Duration::from_millis(200));
    assert!(f.admin().await.move_timer("shop", timer.id, due).await.unwrap());
    f.eventually("its moment", || async { now() > due }).await;
    assert_eq!(f.run.count("due"), 0);
    f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    f.eventually("it", || async { state(f, "k").await.unwrap().due == 1 }).await;
    assert_eq!(f.run.count("due"), 1);
}

pub(crate) async fn of_two_timeouts_due_at_once_the_first_to_complete_its_saga_is_the_last(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Shop>()).await;
    shop.bus().send(Open::new(f.run, "k", 3_600_000)).await.unwrap();
    shop.bus().send(Twice::new(f.run, "label-k", 0)).await.unwrap();
    f.noted("rang", 1).await;
    f.eventually("no timer", || async { f.admin().await.timers("shop", None, 10).await.unwrap().is_empty() }).await;
    assert_eq!(f.admin().await.counts().await.unwrap()["saga"], 0);
    f.settled(&shop, "shop").await;
    assert_eq!(f.run.count("rang"), 1);
    assert!(f.admin().await.dead_letters("shop", 0, 10).await.unwrap().is_empty(), "a late timeout is no dead letter");
}
