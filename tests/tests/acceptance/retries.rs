//! Retries and dead letters.

use crate::world::{Book, Entry, World, messages, policy};
use sagabus::{RunningEndpoint, admin::Cursor, prelude::*};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

messages! {
    Work "retry.work"
    Explode "retry.explode"
    Hopeless "retry.hopeless"
    Throttled "retry.throttled"
}

#[derive(Debug)]
struct Outer(std::io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the carrier does not answer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Fails the first `n` times, and while the flag `broken` is up.
async fn work(m: Work, ctx: &mut Context) -> Result {
    m.run.note(format!("attempts {}", ctx.attempts()));
    m.run.note("work");
    ctx.send(Entry::new(m.run, &m.key, m.n));
    if u64::from(ctx.attempts()) < m.n || m.run.is("broken") {
        Err(Outer(std::io::Error::other("no route to host")))?;
    }
    Ok(())
}

async fn explode(m: Explode, _: &mut Context) -> Result {
    m.run.note("explode");
    panic!("boom {}", m.n);
}

async fn hopeless(m: Hopeless, _: &mut Context) -> Result {
    m.run.note("hopeless");
    "x".parse::<u32>().permanent()?;
    Ok(())
}

/// Asks for a delay of its own, the first time.
async fn throttled(m: Throttled, ctx: &mut Context) -> Result {
    m.run.note("throttled");
    match ctx.attempts() {
        0 => Err(HandlerError::retry_in(Duration::from_millis(m.n), "throttled")),
        _ => Ok(()),
    }
}

pub(crate) async fn immediate_retries_are_counted_then_it_succeeds(w: &World) {
    let builder = w.endpoint("shop").await.on(work).saga::<Book>().recoverability(policy(3, &[]));
    let shop = w.start(builder).await;
    shop.bus().send(Work::new(w.run, "k", 2)).await.unwrap();
    w.eventually("the entry", || async { w.book("shop", "k").await == [2] }).await;
    assert_eq!(w.run.notes(), ["attempts 0", "work", "attempts 1", "work", "attempts 2", "work"]);
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.deferred, stats.dead), (2, 0, 0), "{stats:?}");
    assert_eq!(w.admin().await.counts().await.unwrap()["attempt"], 0, "what is done needs no count");
}

pub(crate) async fn a_delayed_retry_survives_a_restart(w: &World) {
    let build = || async { w.endpoint("shop").await.on(work).saga::<Book>().recoverability(policy(0, &[400])) };
    let first = w.start(build().await).await;
    first.bus().send(Work::new(w.run, "k", 1)).await.unwrap();
    w.eventually("the delay", || async { first.stats().deferred == 1 }).await;
    first.stop().await.unwrap();
    assert_eq!(w.run.count("work"), 1);
    assert_eq!(w.admin().await.counts().await.unwrap()["retry"], 1);

    w.start(build().await).await;
    w.eventually("the entry", || async { w.book("shop", "k").await == [1] }).await;
    assert_eq!(w.run.notes(), ["attempts 0", "work", "attempts 1", "work"]);
}

async fn dead_one(w: &World) -> Arc<RunningEndpoint> {
    w.run.raise("broken");
    let shop = w.start(w.endpoint("shop").await.on(work).saga::<Book>()).await;
    let options = SendOptions::new().header("tenant", "acme");
    shop.bus().send_with(Work::new(w.run, "k", 0), options).await.unwrap();
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    shop
}

pub(crate) async fn a_dead_letter_says_everything(w: &World) {
    dead_one(w).await;
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.handler.as_str(), letter.reason.as_str()), ("retry.work", "handler failed"));
    assert_eq!(letter.detail, ["the carrier does not answer", "no route to host"]);
    assert_eq!((letter.attempts, letter.retrying), (4, false));
    assert_eq!(letter.message.headers.user["tenant"].value, "acme");
    let body: Work = serde_json::from_slice(&letter.message.body).unwrap();
    assert_eq!((body.run, body.key.as_str()), (w.run, "k"));
    assert!(w.admin().await.dead_letters("shop", letter.id, 10).await.unwrap().is_empty(), "after itself");
    assert!(w.admin().await.dead_letters("other", 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_dead_letter_is_retried_once_when_the_cause_is_gone(w: &World) {
    let shop = dead_one(w).await;
    let admin = shop.admin().unwrap();
    let id = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items[0].id;
    // the cause is still there: all its attempts anew, then it is dead again
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 1);
    w.eventually("dead again", || async { shop.stats().dead == 2 }).await;
    assert_eq!(w.run.count("work"), 8);

    w.run.lower("broken");
    let letters = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let id = letters[0].id;
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 1);
    // at once or after it is through: a second call changes nothing
    admin.retry_dead_letters(&[id]).await.unwrap();
    w.eventually("the entry", || async { w.book("shop", "k").await == [0] }).await;
    w.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 0);
    shop.bus().send(Work::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the later entry", || async { w.book("shop", "k").await == [0, 0] }).await;
    assert_eq!(w.run.count("work"), 10);
}

pub(crate) async fn a_dead_letter_is_discarded(w: &World) {
    let shop = dead_one(w).await;
    let admin = shop.admin().unwrap();
    let id = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items[0].id;
    assert_eq!(admin.discard_dead_letters(&[id, id + 1]).await.unwrap(), 1);
    assert_eq!(admin.discard_dead_letters(&[id]).await.unwrap(), 0);
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 0);
    assert!(admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty());
}

pub(crate) async fn a_panic_is_retried_then_buried(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(explode).on(work).saga::<Book>()).await;
    shop.bus().send(Explode::new(w.run, "k", 7)).await.unwrap();
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    assert_eq!(w.run.count("explode"), 4);
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters[0].detail, ["the handler panicked: boom 7"]);
    // and the endpoint is well
    shop.bus().send(Work::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the entry", || async { w.book("shop", "k").await == [0] }).await;
    assert!(shop.health().await.ok);
}

pub(crate) async fn a_permanent_error_is_not_retried(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(hopeless)).await;
    shop.bus().send(Hopeless::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("permanent failure", 1));
    assert_eq!(letters[0].detail, ["invalid digit found in string"]);
    assert_eq!(w.run.count("hopeless"), 1);
}

pub(crate) async fn a_handler_may_choose_its_delay(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(throttled)).await;
    let sent = Instant::now();
    shop.bus().send(Throttled::new(w.run, "k", 150)).await.unwrap();
    w.noted("throttled", 2).await;
    assert!(sent.elapsed() >= Duration::from_millis(150), "{:?}", sent.elapsed());
    w.eventually("its end", || async { shop.stats().handled == 1 }).await;
    assert_eq!((shop.stats().failures, shop.stats().deferred), (1, 1));
}

pub(crate) async fn an_endpoint_where_everything_fails_slows_down(w: &World) {
    let mut slow = policy(0, &[]);
    (slow.slow_down_after, slow.slow_down) = (5, Duration::from_millis(40));
    let shop = w.start(w.endpoint("shop").await.on(hopeless).on(work).saga::<Book>().recoverability(slow)).await;
    for n in 0..10 {
        shop.bus().send(Hopeless::new(w.run, "k", n)).await.unwrap();
        w.eventually("it", || async { shop.stats().dead == n + 1 }).await;
    }
    let started = Instant::now();
    for n in 10..15 {
        shop.bus().send(Hopeless::new(w.run, "k", n)).await.unwrap();
    }
    w.eventually("the rest", || async { shop.stats().dead == 15 }).await;
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    // a success ends it
    shop.bus().send(Work::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the entry", || async { w.book("shop", "k").await == [0] }).await;
}
