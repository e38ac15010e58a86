//! Retries and dead letters.

use crate::fixture::{Entry, Fixture, Ledger, messages, policy};
use sagabus::{RunningEndpoint, admin::Cursor, prelude::*};
use serde::{Deserialize, Serialize};
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
    Job "retry.job"
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

/// Changes its state and sends a message, and then fails the first `n` times.
#[derive(Default, Serialize, Deserialize)]
struct Worker {
    runs: u64,
}

impl Saga for Worker {
    const NAME: &'static str = "worker";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Job>(|m| m.key.clone());
    }
}

impl Handle<Job> for Worker {
    async fn handle(&mut self, m: Job, ctx: &mut SagaContext) -> Result {
        m.run.note(format!("{} after {}", m.key, ctx.attempts()));
        self.runs += 1;
        ctx.send(Entry::new(m.run, &m.key, self.runs));
        if u64::from(ctx.attempts()) < m.n {
            Err(Outer(std::io::Error::other("no route to host")))?;
        }
        Ok(())
    }
}

/// Of one key, after how many attempts its handler ran.
fn attempts_of(f: &Fixture, key: &str) -> Vec<String> {
    let of_key = |note: &String| note.strip_prefix(&format!("{key} after ")).map(str::to_owned);
    f.run.notes().iter().filter_map(of_key).collect()
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

pub(crate) async fn immediate_retries_are_counted_then_it_succeeds(f: &Fixture) {
    let builder = f.endpoint("shop").await.on(work).saga::<Ledger>().recoverability(policy(3, &[]));
    let shop = f.start(builder).await;
    shop.bus().send(Work::new(f.run, "k", 2)).await.unwrap();
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [2] }).await;
    assert_eq!(f.run.notes(), ["attempts 0", "work", "attempts 1", "work", "attempts 2", "work"]);
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.deferred, stats.dead), (2, 0, 0), "{stats:?}");
    assert_eq!(f.admin().await.counts().await.unwrap()["attempt"], 0, "what is done needs no count");
}

pub(crate) async fn a_delayed_retry_survives_a_restart(f: &Fixture) {
    let build = || async { f.endpoint("shop").await.on(work).saga::<Ledger>().recoverability(policy(0, &[400])) };
    let first = f.start(build().await).await;
    first.bus().send(Work::new(f.run, "k", 1)).await.unwrap();
    f.eventually("the delay", || async { first.stats().deferred == 1 }).await;
    first.stop().await.unwrap();
    assert_eq!(f.run.count("work"), 1);
    assert_eq!(f.admin().await.counts().await.unwrap()["retry"], 1);

    f.start(build().await).await;
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [1] }).await;
    assert_eq!(f.run.notes(), ["attempts 0", "work", "attempts 1", "work"]);
}

pub(crate) async fn a_failed_attempt_leaves_nothing_behind(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Worker>().saga::<Ledger>()).await;
    shop.bus().send(Job::new(f.run, "quick", 1)).await.unwrap();
    shop.bus().send(Job::new(f.run, "slow", 3)).await.unwrap();
    let id = shop.bus().send(Job::new(f.run, "never", u64::MAX)).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    f.eventually("both entries", || async { shop.stats().handled >= 4 }).await;
    f.settled(&shop, "shop").await;
    assert_eq!((f.ledger("shop", "quick").await, f.ledger("shop", "slow").await), (vec![1], vec![1]));
    assert_eq!(attempts_of(f, "quick"), ["0", "1"]);
    assert_eq!(attempts_of(f, "slow"), ["0", "1", "2", "3"]);
    assert_eq!(attempts_of(f, "never"), ["0", "1", "2", "3"]);
    let stats = shop.stats();
    assert_eq!((stats.handled, stats.failures, stats.deferred, stats.dead), (4, 8, 2, 1), "{stats:?}");
    assert_eq!(f.admin().await.counts().await.unwrap()["attempt"], 0, "the counts go with the end");
    assert!(f.admin().await.saga("shop/worker", "never").await.unwrap().is_none(), "a failed start leaves no saga");
    assert!(f.ledger("shop", "never").await.is_empty());
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].handler.as_str(), letters[0].attempts), (1, "worker", 4), "{letters:?}");
    assert_eq!(
        (letters[0].message.headers.message_id, letters[0].message.headers.message_type.as_str()),
        (id, "retry.job")
    );
}

/// Attempts made before a stop count after it.
pub(crate) async fn attempts_survive_a_restart(f: &Fixture) {
    let build =
        || async { f.endpoint("shop").await.saga::<Worker>().saga::<Ledger>().recoverability(policy(1, &[700])) };
    let first = f.start(build().await).await;
    first.bus().send(Job::new(f.run, "never", u64::MAX)).await.unwrap();
    f.eventually("the first round", || async { f.admin().await.counts().await.unwrap()["retry"] == 1 }).await;
    first.stop().await.unwrap();
    let second = f.start(build().await).await;
    f.eventually("the dead letter", || async { second.stats().dead == 1 }).await;
    assert_eq!(f.admin().await.dead_letters("shop", 0, 10).await.unwrap()[0].attempts, 4);
    assert_eq!(attempts_of(f, "never"), ["0", "1", "2", "3"]);
}

async fn dead_one(f: &Fixture) -> Arc<RunningEndpoint> {
    f.run.raise("broken");
    let shop = f.start(f.endpoint("shop").await.on(work).saga::<Ledger>()).await;
    let options = SendOptions::new().header("tenant", "acme");
    shop.bus().send_with(Work::new(f.run, "k", 0), options).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    shop
}

pub(crate) async fn a_dead_letter_says_everything(f: &Fixture) {
    dead_one(f).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.handler.as_str(), letter.reason.as_str()), ("retry.work", "handler failed"));
    assert_eq!(letter.detail, ["the carrier does not answer", "no route to host"]);
    assert_eq!((letter.attempts, letter.retrying), (4, false));
    assert_eq!(letter.message.headers.user["tenant"].value, "acme");
    let body: Work = serde_json::from_slice(&letter.message.body).unwrap();
    assert_eq!((body.run, body.key.as_str()), (f.run, "k"));
    assert!(f.admin().await.dead_letters("shop", letter.id, 10).await.unwrap().is_empty(), "after itself");
    assert!(f.admin().await.dead_letters("other", 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_dead_letter_is_retried_once_when_the_cause_is_gone(f: &Fixture) {
    let shop = dead_one(f).await;
    let admin = shop.admin().unwrap();
    let id = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items[0].id;
    // the cause is still there: all its attempts anew, then it is dead again
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 1);
    f.eventually("dead again", || async { shop.stats().dead == 2 }).await;
    assert_eq!(f.run.count("work"), 8);

    f.run.lower("broken");
    let letters = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let id = letters[0].id;
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 1);
    // at once or after it is through: a second call changes nothing
    admin.retry_dead_letters(&[id]).await.unwrap();
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [0] }).await;
    f.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 0);
    shop.bus().send(Work::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the later entry", || async { f.ledger("shop", "k").await == [0, 0] }).await;
    assert_eq!(f.run.count("work"), 10);
}

pub(crate) async fn a_dead_letter_is_discarded(f: &Fixture) {
    let shop = dead_one(f).await;
    let admin = shop.admin().unwrap();
    let id = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items[0].id;
    assert_eq!(admin.discard_dead_letters(&[id, id + 1]).await.unwrap(), 1);
    assert_eq!(admin.discard_dead_letters(&[id]).await.unwrap(), 0);
    assert_eq!(admin.retry_dead_letters(&[id]).await.unwrap(), 0);
    assert!(admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty());
}

pub(crate) async fn a_panic_is_retried_then_dead_lettered(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(explode).on(work).saga::<Ledger>()).await;
    shop.bus().send(Explode::new(f.run, "k", 7)).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    assert_eq!(f.run.count("explode"), 4);
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters[0].detail, ["the handler panicked: boom 7"]);
    assert_eq!(letters[0].attempts, 4);
    // and the endpoint is well
    shop.bus().send(Work::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [0] }).await;
    assert!(shop.health().await.ok);
}

pub(crate) async fn a_permanent_error_is_not_retried(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(hopeless)).await;
    shop.bus().send(Hopeless::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("permanent failure", 1));
    assert_eq!(letters[0].detail, ["invalid digit found in string"]);
    assert_eq!(f.run.count("hopeless"), 1);
}

pub(crate) async fn a_handler_may_choose_its_delay(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(throttled)).await;
    let sent = Instant::now();
    shop.bus().send(Throttled::new(f.run, "k", 150)).await.unwrap();
    f.noted("throttled", 2).await;
    assert!(sent.elapsed() >= Duration::from_millis(150), "{:?}", sent.elapsed());
    f.eventually("its end", || async { shop.stats().handled == 1 }).await;
    assert_eq!((shop.stats().failures, shop.stats().deferred), (1, 1));
}

pub(crate) async fn an_endpoint_where_everything_fails_slows_down(f: &Fixture) {
    let mut slow = policy(0, &[]);
    (slow.slow_down_after, slow.slow_down) = (5, Duration::from_millis(40));
    let shop = f.start(f.endpoint("shop").await.on(hopeless).on(work).saga::<Ledger>().recoverability(slow)).await;
    for n in 0..10 {
        shop.bus().send(Hopeless::new(f.run, "k", n)).await.unwrap();
        f.eventually("it", || async { shop.stats().dead == n + 1 }).await;
    }
    let started = Instant::now();
    for n in 10..15 {
        shop.bus().send(Hopeless::new(f.run, "k", n)).await.unwrap();
    }
    f.eventually("the rest", || async { shop.stats().dead == 15 }).await;
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    // a success ends it
    shop.bus().send(Work::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [0] }).await;
}
