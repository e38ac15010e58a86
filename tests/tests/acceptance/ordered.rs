//! Ordered endpoints.

use crate::world::{Book, Entry, World, messages, policy};
use sagabus::prelude::*;

messages! {
    Step "order.step"
    Stumble "order.stumble"
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

async fn send_all(w: &World, bus: &Bus, key: &str) {
    for n in 0..5 {
        bus.send_with(Step::new(w.run, key, n), SendOptions::new().key(key)).await.unwrap();
    }
}

pub(crate) async fn a_failing_message_blocks_its_key_only(w: &World) {
    w.run.raise("broken");
    // more rounds than the test needs, each soon
    let policy = policy(1, &[20; 2000]);
    let builder = w.endpoint("shop").await.on(step).saga::<Book>().ordered().recoverability(policy);
    let shop = w.start(builder).await;
    send_all(w, &shop.bus(), "a").await;
    send_all(w, &shop.bus(), "b").await;
    w.eventually("the other key", || async { w.book("shop", "b").await == [0, 1, 2, 3, 4] }).await;
    // it waits behind all of a's steps: it may come later than b's last, and than many retries
    w.eventually("what came before the failing one", || async { w.book("shop", "a").await == [0] }).await;
    let before = shop.stats().deferred;
    w.eventually("retries", || async { shop.stats().deferred >= before + 3 }).await;
    assert_eq!(w.book("shop", "a").await, [0]);
    assert_eq!(w.run.count("a 2"), 0);
    w.run.lower("broken");
    w.eventually("the blocked key", || async { w.book("shop", "a").await.len() == 5 }).await;
    assert_eq!(w.book("shop", "a").await, [0, 1, 2, 3, 4]);
    assert_eq!(shop.stats().dead, 0);
}

pub(crate) async fn a_buried_message_lets_its_key_go_on(w: &World) {
    w.run.raise("broken");
    let shop = w.start(w.endpoint("shop").await.on(step).saga::<Book>().ordered()).await;
    send_all(w, &shop.bus(), "a").await;
    w.eventually("the others", || async { w.book("shop", "a").await.len() == 4 }).await;
    assert_eq!(w.book("shop", "a").await, [0, 2, 3, 4]);
    assert_eq!((w.run.count("a 1"), shop.stats().dead), (4, 1));
    let notes = w.run.notes();
    let last_try = notes.iter().rposition(|note| note == "a 1").unwrap();
    let next = notes.iter().position(|note| note == "a 2").unwrap();
    assert!(last_try < next, "{notes:?}");
}

pub(crate) async fn a_blocked_key_keeps_its_order_through_a_restart(w: &World) {
    w.run.raise("broken");
    let build =
        || async { w.endpoint("shop").await.on(step).saga::<Book>().ordered().recoverability(policy(0, &[100; 2000])) };
    let first = w.start(build().await).await;
    send_all(w, &first.bus(), "a").await;
    w.eventually("retries", || async { first.stats().deferred >= 2 }).await;
    first.stop().await.unwrap();
    let second = w.start(build().await).await;
    w.eventually("more of them", || async { second.stats().deferred >= 1 }).await;
    assert_eq!(w.run.count("a 2"), 0);
    w.run.lower("broken");
    w.eventually("the blocked key", || async { w.book("shop", "a").await.len() == 5 }).await;
    assert_eq!(w.book("shop", "a").await, [0, 1, 2, 3, 4]);
}

/// Every fifth one fails once at once, and once more in its delayed retry.
async fn stumble(m: Stumble, ctx: &mut Context) -> Result {
    if m.n % 5 == 4 && ctx.attempts() < 3 {
        return Err(HandlerError::new("stumbled"));
    }
    ctx.send_with(Entry::new(m.run, &m.key, m.n), SendOptions::new().key(&m.key));
    Ok(())
}

pub(crate) async fn two_instances_keep_the_order_through_failures_and_a_stop(w: &World) {
    const EACH: u64 = 30;
    let build =
        || async { w.endpoint("shop").await.on(stumble).saga::<Book>().ordered().recoverability(policy(1, &[10, 10])) };
    let (one, two) = (w.start(build().await).await, w.start(build().await).await);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for n in 0..EACH {
        for key in keys {
            one.bus().send_with(Stumble::new(w.run, key, n), SendOptions::new().key(key)).await.unwrap();
        }
        if n == EACH / 2 {
            // in the middle: what it holds goes over to the other one
            two.stop().await.unwrap();
        }
    }
    for key in keys {
        w.eventually("all of a key", || async { w.book("shop", key).await.len() as u64 >= EACH }).await;
        assert_eq!(w.book("shop", key).await, (0..EACH).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(one.stats().dead + two.stats().dead, 0);
}
