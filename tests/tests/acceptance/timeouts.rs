//! Timeouts of sagas.

use crate::world::{World, messages, policy};
use sagabus::{admin::Cursor, admin::TimerId, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    Open "time.open"
    Close "time.close"
    Cancel "time.cancel"
    Due "time.due"
    Later "time.later"
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
            .timeout::<Due>()
            .timeout::<Later>();
    }
}

impl Handle<Open> for Shop {
    async fn handle(&mut self, m: Open, ctx: &mut SagaContext) -> Result {
        self.opened += 1;
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

async fn state(w: &World, key: &str) -> Option<Shop> {
    let row = w.admin().await.saga("shop/shop", key).await.unwrap();
    row.map(|row| serde_json::from_slice(&row.state).unwrap())
}

pub(crate) async fn a_late_timeout_is_dropped_and_counted(w: &World) {
    // its handler fails, so that it waits for its retry while its saga ends: this one, or on a busy machine the next
    w.run.raise("broken");
    let shop = w.start(w.endpoint("shop").await.saga::<Shop>().recoverability(policy(0, &[300; 100]))).await;
    shop.bus().send(Open::new(w.run, "k", 1)).await.unwrap();
    w.eventually("the failure", || async { shop.stats().deferred >= 1 }).await;
    shop.bus().send(Close::new(w.run, "k", 0)).await.unwrap();
    w.noted("closed", 1).await;
    // nor does a new life under the same key get it
    shop.bus().send(Open::new(w.run, "k", 3_600_000)).await.unwrap();
    w.eventually("the drop", || async { !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["late-timeout"], 1);
    let runs = w.run.notes();
    let closed = runs.iter().position(|note| note == "closed").unwrap();
    assert!(!runs[closed..].contains(&"due".into()), "{runs:?}");
    w.eventually("the new life", || async { state(w, "k").await.is_some() }).await;
    assert_eq!(state(w, "k").await.unwrap().due, 0);
}

pub(crate) async fn a_cancelled_timeout_never_fires(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    for (key, how) in [("by id", 0), ("by type", 1)] {
        shop.bus().send(Open::new(w.run, key, 2_000)).await.unwrap();
        shop.bus().send(Cancel::new(w.run, key, how)).await.unwrap();
    }
    // one that is due after them shows that their moment has passed
    w.noted("later", 2).await;
    w.eventually("no timer", || async { w.admin().await.timers("shop", None, 10).await.unwrap().is_empty() }).await;
    shop.bus().send(Open::new(w.run, "marker", 2_000)).await.unwrap();
    w.eventually("the marker", || async { state(w, "marker").await.is_some_and(|s| s.due == 1) }).await;
    assert_eq!(w.run.count("due"), 1);
    assert_eq!((state(w, "by id").await.unwrap().due, state(w, "by type").await.unwrap().due), (0, 0));
}

pub(crate) async fn a_timeout_is_moved_by_the_admin(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    shop.bus().send(Open::new(w.run, "moved", 3_600_000)).await.unwrap();
    shop.bus().send(Open::new(w.run, "cancelled", 7_200_000)).await.unwrap();
    let admin = shop.admin().unwrap();
    w.eventually("both timers", || async { admin.timers(&Cursor::start(), 10).await.unwrap().items.len() == 2 }).await;
    let timers = admin.timers(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(timers[0].message_type, "time.due");
    assert_eq!(timers[0].saga.as_ref().unwrap().key, "moved");
    let now = sagabus::Timestamp::from(std::time::SystemTime::now());
    assert!(timers[0].due > now && timers[0].due <= now.plus(HOUR), "{timers:?}");
    assert!(admin.cancel_timer(timers[1].id).await.unwrap());
    assert!(!admin.cancel_timer(timers[1].id).await.unwrap());
    assert!(admin.move_timer(timers[0].id, now).await.unwrap());
    w.eventually("the timeout", || async { state(w, "moved").await.unwrap().due == 1 }).await;
    assert!(!admin.move_timer(timers[0].id, now).await.unwrap(), "it has taken effect");
    assert!(admin.timers(&Cursor::start(), 10).await.unwrap().items.is_empty());
    assert_eq!(w.run.count("due"), 1);
}

pub(crate) async fn a_timer_of_an_earlier_life_is_harmless(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    shop.bus().send(Open::new(w.run, "k", 2_000)).await.unwrap();
    w.noted("opened", 1).await;
    shop.bus().send(Close::new(w.run, "k", 0)).await.unwrap();
    w.noted("closed", 1).await;
    shop.bus().send(Open::new(w.run, "k", 3_600_000)).await.unwrap();
    w.noted("opened", 2).await;
    shop.bus().send(Open::new(w.run, "marker", 2_100)).await.unwrap();
    w.eventually("the marker", || async { state(w, "marker").await.is_some_and(|s| s.due == 1) }).await;
    assert_eq!(state(w, "k").await.unwrap().due, 0);
    assert_eq!(w.run.count("due"), 1, "only the marker's");
}

pub(crate) async fn a_completed_saga_starts_anew(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    for n in 1..=3 {
        shop.bus().send(Open::new(w.run, "k", 3_600_000)).await.unwrap();
        w.noted("opened", n).await;
        w.eventually("the row", || async { state(w, "k").await.is_some_and(|s| s.opened == 1) }).await;
        shop.bus().send(Close::new(w.run, "k", 0)).await.unwrap();
        w.eventually("its end", || async { state(w, "k").await.is_none() }).await;
        assert!(w.admin().await.timers("shop", None, 10).await.unwrap().is_empty(), "its timeouts went with it");
    }
    let mut lives: Vec<_> = w.run.notes().into_iter().filter(|note| note.starts_with("opened ")).collect();
    lives.dedup();
    assert_eq!(lives.len(), 3, "{lives:?}");
}

pub(crate) async fn a_timeout_comes_due_while_nobody_runs(w: &World) {
    let first = w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    first.bus().send(Open::new(w.run, "k", 3_600_000)).await.unwrap();
    w.eventually("the timer", || async { w.admin().await.counts().await.unwrap()["timer"] == 1 }).await;
    first.stop().await.unwrap();
    // moved only now, so that it cannot be due before the stop
    let timer = w.admin().await.timers("shop", None, 1).await.unwrap().remove(0);
    let now = || sagabus::Timestamp::from(std::time::SystemTime::now());
    let due = now().plus(Duration::from_millis(200));
    assert!(w.admin().await.move_timer("shop", timer.id, due).await.unwrap());
    w.eventually("its moment", || async { now() > due }).await;
    assert_eq!(w.run.count("due"), 0);
    w.start(w.endpoint("shop").await.saga::<Shop>()).await;
    w.eventually("it", || async { state(w, "k").await.unwrap().due == 1 }).await;
    assert_eq!(w.run.count("due"), 1);
}
