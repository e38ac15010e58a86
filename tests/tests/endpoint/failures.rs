//! Retries, dead letters, panics.

use crate::bed::{Bed, Seen, admin, start};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "failures.job")]
struct Job {
    name: String,
    fails: u32,
}

/// What each job's handler was told about earlier attempts. Jobs have names of their own.
static ATTEMPTS: Mutex<Option<HashMap<String, Vec<u32>>>> = Mutex::new(None);

fn attempted(name: &str, attempts: u32) {
    let mut all = ATTEMPTS.lock().unwrap_or_else(PoisonError::into_inner);
    all.get_or_insert_default().entry(name.to_string()).or_default().push(attempts);
}

fn attempts_of(name: &str) -> Vec<u32> {
    let all = ATTEMPTS.lock().unwrap_or_else(PoisonError::into_inner);
    all.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default()
}

fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::now_v7().simple())
}

#[derive(Debug)]
struct Outer(std::io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("book the parcel")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Changes its state and asks for a message before it fails: none of it may be kept.
#[derive(Default, Serialize, Deserialize)]
struct Worker {
    runs: u32,
}

impl Saga for Worker {
    const NAME: &'static str = "worker";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Job>(|m| m.name.clone());
    }
}

impl Handle<Job> for Worker {
    async fn handle(&mut self, m: Job, ctx: &mut SagaContext) -> Result {
        attempted(&m.name, ctx.attempts());
        self.runs += 1;
        ctx.send(Seen(format!("{} ran {}", m.name, self.runs)));
        if ctx.attempts() < m.fails {
            return Err(Outer(std::io::Error::other("the carrier is closed")).into());
        }
        Ok(())
    }
}

async fn immediate_and_delayed_retries_then_success(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Worker>()).await;
    let (quick, slow) = (unique("quick"), unique("slow"));
    shop.bus().send(Job { name: quick.clone(), fails: 1 }).await.unwrap();
    shop.bus().send(Job { name: slow.clone(), fails: 3 }).await.unwrap();
    bed.expect(&shop, &[&format!("{quick} ran 1"), &format!("{slow} ran 1")]).await;
    assert_eq!(attempts_of(&quick), [0, 1]);
    assert_eq!(attempts_of(&slow), [0, 1, 2, 3]);
    let stats = shop.stats();
    assert_eq!((stats.handled, stats.failures, stats.deferred, stats.dead), (2, 4, 1, 0), "{stats:?}");
    assert_eq!(bed.counts(&shop).await["attempt"], 0, "the counters go with the success");
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn after_the_last_round_a_dead_letter_says_why(bed: Bed) {
    let shop = start(bed.endpoint("shop").saga::<Worker>()).await;
    let name = unique("never");
    let id = shop.bus().send(Job { name: name.clone(), fails: u32::MAX }).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert_eq!((letter.handler.as_str(), letter.attempts, letter.reason.as_str()), ("worker", 4, "handler failed"));
    assert_eq!(letter.detail, ["book the parcel", "the carrier is closed"]);
    assert_eq!(letter.message.headers.message_id, id);
    assert_eq!(letter.message.headers.message_type, "failures.job");
    assert!(String::from_utf8_lossy(&letter.message.body).contains(&name));
    assert_eq!(attempts_of(&name), [0, 1, 2, 3]);
    bed.quiet(&shop).await;
    assert_eq!(bed.counts(&shop).await["saga"], 0, "a failed start leaves no saga");
    assert!(bed.seen().is_empty());
    shop.stop().await.unwrap();
}

/// Attempts made before a stop count after it.
async fn attempts_survive_a_restart(bed: Bed) {
    let name = unique("restart");
    let first = start(bed.endpoint("shop").recoverability(patient()).saga::<Worker>()).await;
    first.bus().send(Job { name: name.clone(), fails: u32::MAX }).await.unwrap();
    crate::bed::eventually("the first round is over", || async {
        if bed.counts(&first).await["retry"] == 1 { Ok(()) } else { Err("not deferred".into()) }
    })
    .await;
    first.stop().await.unwrap();
    let second = start(bed.endpoint("shop").recoverability(patient()).saga::<Worker>()).await;
    let letter = bed.dead_letters(&second, "shop", 1).await.remove(0);
    assert_eq!((letter.attempts, attempts_of(&name)), (4, vec![0, 1, 2, 3]));
    second.stop().await.unwrap();
}

fn patient() -> Recoverability {
    Recoverability {
        immediate: 1,
        pause: std::time::Duration::from_millis(2),
        delays: vec![std::time::Duration::from_millis(700)],
        ..Recoverability::default()
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "failures.mend")]
struct Mend {
    name: String,
}

/// The names of those that do not fail any more.
static MENDED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

async fn mend(m: Mend, ctx: &mut Context) -> Result {
    if !MENDED.lock().unwrap().contains(&m.name) {
        return Err(HandlerError::permanent("not mended yet"));
    }
    ctx.send(Seen(m.name));
    Ok(())
}

async fn a_dead_letter_is_sent_again_once(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").on(mend)).await;
    let name = unique("mend");
    shop.bus().send(Mend { name: name.clone() }).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.attempts), ("permanent failure", 1), "permanent means one attempt");
    MENDED.lock().unwrap().insert(name.clone());
    assert_eq!(admin(&shop).retry_dead_letters("shop", &[letter.id]).await.unwrap(), 1);
    bed.expect(&shop, &[&name]).await;
    bed.dead_letters(&shop, "shop", 0).await;
    assert_eq!(admin(&shop).retry_dead_letters("shop", &[letter.id]).await.unwrap(), 0, "it is gone");
    bed.expect(&shop, &[&name]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "failures.crash")]
struct Crash;

async fn crash(_: Crash, _: &mut Context) -> Result {
    panic!("this handler panics, as it should")
}

async fn a_panic_is_a_failure_like_any_other(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").on(crash).saga::<Worker>()).await;
    shop.bus().send(Crash).await.unwrap();
    let name = unique("beside");
    shop.bus().send(Job { name: name.clone(), fails: 0 }).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert!(letter.detail[0].contains("this handler panics, as it should"), "{:?}", letter.detail);
    assert_eq!(letter.attempts, 4);
    bed.expect(&shop, &[&format!("{name} ran 1")]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "failures.later")]
struct Later {
    name: String,
}

async fn later(m: Later, ctx: &mut Context) -> Result {
    attempted(&m.name, ctx.attempts());
    if ctx.attempts() == 0 {
        return Err(HandlerError::retry_in(std::time::Duration::from_millis(250), "come back later"));
    }
    ctx.send(Seen(m.name));
    Ok(())
}

async fn a_handler_may_say_when(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").on(later)).await;
    let name = unique("later");
    let before = std::time::Instant::now();
    shop.bus().send(Later { name: name.clone() }).await.unwrap();
    bed.expect(&shop, &[&name]).await;
    assert!(before.elapsed() >= std::time::Duration::from_millis(250), "{:?}", before.elapsed());
    assert_eq!((attempts_of(&name), shop.stats().deferred), (vec![0, 1], 1));
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

on_every_backend!(
    immediate_and_delayed_retries_then_success,
    after_the_last_round_a_dead_letter_says_why,
    a_dead_letter_is_sent_again_once,
    attempts_survive_a_restart,
    a_panic_is_a_failure_like_any_other,
    a_handler_may_say_when,
);
