//! Ordered endpoints.

use crate::fixture::{Entry, Fixture, Ledger, messages, policy};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

messages! {
    Step "order.step"
    Stumble "order.stumble"
    Log "order.log"
}

/// While `broken` is up, step 1 of key `a` fails.
async fn step(m: Step, ctx: &mut Context) -> Result {
    m.run.note(format!("{} {}", m.key, m.n));
    if m.run.is("broken") && m.key == "a" && m.n == 1 {
        return Err(HandlerError::new("not yet"));
    }
    ctx.send_with(Entry::new(m.run, &m.key, m.n), SendOptions::new().key(&m.key));
    Ok(())
}

async fn send_all(f: &Fixture, bus: &Bus, key: &str) {
    for n in 0..5 {
        bus.send_with(Step::new(f.run, key, n), SendOptions::new().key(key)).await.unwrap();
    }
}

pub(crate) async fn a_failing_message_blocks_its_key_only(f: &Fixture) {
    f.run.raise("broken");
    // more rounds than the test needs, each soon
    let policy = policy(1, &[20; 2000]);
    let builder = f.endpoint("shop").await.on(step).saga::<Ledger>().ordered().recoverability(policy);
    let shop = f.start(builder).await;
    send_all(f, &shop.bus(), "a").await;
    send_all(f, &shop.bus(), "b").await;
    f.eventually("the other key", || async { f.ledger("shop", "b").await == [0, 1, 2, 3, 4] }).await;
    // it waits behind all of a's steps: it may come later than b's last, and than many retries
    f.eventually("what came before the failing one", || async { f.ledger("shop", "a").await == [0] }).await;
    let before = shop.stats().deferred;
    f.eventually("retries", || async { shop.stats().deferred >= before + 3 }).await;
    assert_eq!(f.ledger("shop", "a").await, [0]);
    assert_eq!(f.run.count("a 2"), 0);
    f.run.lower("broken");
    f.eventually("the blocked key", || async { f.ledger("shop", "a").await.len() == 5 }).await;
    assert_eq!(f.ledger("shop", "a").await, [0, 1, 2, 3, 4]);
    // ten steps and their entries
    f.settled(&shop, "shop").await;
    assert_eq!((shop.stats().handled, shop.stats().dead), (20, 0), "{:?}", shop.stats());
}

pub(crate) async fn a_dead_letter_lets_its_key_go_on(f: &Fixture) {
    f.run.raise("broken");
    let shop = f.start(f.endpoint("shop").await.on(step).saga::<Ledger>().ordered()).await;
    send_all(f, &shop.bus(), "a").await;
    f.eventually("the others", || async { f.ledger("shop", "a").await.len() == 4 }).await;
    assert_eq!(f.ledger("shop", "a").await, [0, 2, 3, 4]);
    assert_eq!((f.run.count("a 1"), shop.stats().dead), (4, 1));
    let notes = f.run.notes();
    let last_try = notes.iter().rposition(|note| note == "a 1").unwrap();
    let next = notes.iter().position(|note| note == "a 2").unwrap();
    assert!(last_try < next, "{notes:?}");
}

pub(crate) async fn a_blocked_key_keeps_its_order_through_a_restart(f: &Fixture) {
    f.run.raise("broken");
    let build = || async {
        f.endpoint("shop").await.on(step).saga::<Ledger>().ordered().recoverability(policy(0, &[100; 2000]))
    };
    let first = f.start(build().await).await;
    send_all(f, &first.bus(), "a").await;
    f.eventually("retries", || async { first.stats().deferred >= 2 }).await;
    first.stop().await.unwrap();
    let second = f.start(build().await).await;
    f.eventually("more of them", || async { second.stats().deferred >= 1 }).await;
    assert_eq!(f.run.count("a 2"), 0);
    f.run.lower("broken");
    f.eventually("the blocked key", || async { f.ledger("shop", "a").await.len() == 5 }).await;
    assert_eq!(f.ledger("shop", "a").await, [0, 1, 2, 3, 4]);
}

/// Every fifth one fails once at once, and once more in its delayed retry.
async fn stumble(m: Stumble, ctx: &mut Context) -> Result {
    if m.n % 5 == 4 && ctx.attempts() < 3 {
        return Err(HandlerError::new("stumbled"));
    }
    ctx.send_with(Entry::new(m.run, &m.key, m.n), SendOptions::new().key(&m.key));
    Ok(())
}

pub(crate) async fn two_instances_keep_the_order_through_failures_and_a_stop(f: &Fixture) {
    const EACH: u64 = 30;
    let build = || async {
        f.endpoint("shop").await.on(stumble).saga::<Ledger>().ordered().recoverability(policy(1, &[10, 10]))
    };
    let (one, two) = (f.start(build().await).await, f.start(build().await).await);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for n in 0..EACH {
        for key in keys {
            one.bus().send_with(Stumble::new(f.run, key, n), SendOptions::new().key(key)).await.unwrap();
        }
        if n == EACH / 2 {
            // in the middle: what it holds goes over to the other one
            two.stop().await.unwrap();
        }
    }
    for key in keys {
        f.eventually("all of a key", || async { f.ledger("shop", key).await.len() as u64 >= EACH }).await;
        assert_eq!(f.ledger("shop", key).await, (0..EACH).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(one.stats().dead + two.stats().dead, 0);
}

/// Its state shows the order in which the messages took effect.
#[derive(Default, Serialize, Deserialize)]
struct Journal {
    entries: Vec<u64>,
}

impl Saga for Journal {
    const NAME: &'static str = "journal";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Log>(|m| m.key.clone());
    }
}

/// How often a message fails: now and then at once, through a whole round, or for good.
fn failures(key: &str, n: u64) -> u32 {
    match (key, n) {
        ("d", 2) => u32::MAX,
        (_, n) if n % 13 == 5 => 3,
        (_, n) if n % 7 == 3 => 1,
        _ => 0,
    }
}

impl Handle<Log> for Journal {
    async fn handle(&mut self, m: Log, ctx: &mut SagaContext) -> Result {
        if ctx.attempts() < failures(&m.key, m.n) {
            return Err(HandlerError::new("not yet"));
        }
        self.entries.push(m.n);
        Ok(())
    }
}

/// A message that is a dead letter blocks no longer.
pub(crate) async fn a_saga_takes_the_messages_of_a_key_in_their_order(f: &Fixture) {
    const EACH: u64 = 40;
    let shop = f.start(f.endpoint("shop").await.ordered().saga::<Journal>()).await;
    for n in 0..EACH {
        for key in ["a", "b", "c", "d"] {
            shop.bus().send_with(Log::new(f.run, key, n), SendOptions::new().key(key)).await.unwrap();
        }
    }
    for key in ["a", "b", "c", "d"] {
        let wanted: Vec<u64> = (0..EACH).filter(|n| failures(key, *n) < 4).collect();
        let entries = || async {
            let row = f.admin().await.saga("shop/journal", key).await.unwrap();
            row.map(|row| serde_json::from_slice::<Journal>(&row.state).unwrap().entries).unwrap_or_default()
        };
        f.eventually("all of a key", || async { entries().await.len() >= wanted.len() }).await;
        assert_eq!(entries().await, wanted, "{key}");
    }
    assert_eq!(f.admin().await.dead_letters("shop", 0, 10).await.unwrap().len(), 1);
}
