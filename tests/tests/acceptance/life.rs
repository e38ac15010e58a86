//! An endpoint's life: pause, stop, several instances.

use crate::world::{Book, Entry, World, messages};
use sagabus::{RunningEndpoint, prelude::*};
use std::{sync::Arc, time::Duration};

messages! {
    Work "life.work"
    Wait "life.wait"
}

/// A function: its effect is the entry that a saga keeps.
async fn work(m: Work, ctx: &mut Context) -> Result {
    m.run.note("work");
    if m.run.is("held") && m.n >= 100 {
        m.run.until("go").await;
    }
    ctx.send(Entry::new(m.run, &m.key, m.n));
    Ok(())
}

/// In its handler until the test lets it go on.
async fn wait(m: Wait, ctx: &mut Context) -> Result {
    m.run.note(format!("wait {}", m.n));
    m.run.until(&format!("go {}", m.n)).await;
    ctx.send(Entry::new(m.run, &m.key, m.n));
    Ok(())
}

async fn shop(w: &World) -> Arc<RunningEndpoint> {
    w.start(w.endpoint("shop").await.on(work).on(wait).saga::<Book>()).await
}

pub(crate) async fn a_pause_takes_nothing_new(w: &World) {
    let shop = shop(w).await;
    shop.bus().send(Wait::new(w.run, "k", 1)).await.unwrap();
    w.noted("wait 1", 1).await;
    shop.pause();
    assert!(shop.health().await.paused);
    // what was asked for before the pause may still come: a first message takes that
    shop.bus().send(Work::new(w.run, "k", 2)).await.unwrap();
    let before = shop.stats().received;
    for n in 3..30 {
        shop.bus().send(Work::new(w.run, "k", n)).await.unwrap();
    }
    // what is in flight goes on to its end
    w.run.raise("go 1");
    w.eventually("the handler's end", || async { shop.stats().handled >= 1 }).await;
    assert!(shop.stats().received <= before + 1, "{:?}", shop.stats());
    assert!(w.run.count("work") <= 1);
    shop.resume();
    w.eventually("all", || async { w.book("shop", "k").await.len() == 29 }).await;
    assert!(!shop.health().await.paused);
    let mut entries = w.book("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, (1..30).collect::<Vec<_>>());
}

pub(crate) async fn a_stop_under_load_loses_and_doubles_nothing(w: &World) {
    const MESSAGES: u64 = 300;
    w.run.raise("held");
    let build = || async { w.endpoint("shop").await.on(work).saga::<Book>().concurrency(16) };
    let first = w.start(build().await).await;
    let bus = first.bus();
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let all = (0..MESSAGES).map(|n| Work::new(w.run, &keys[usize::try_from(n % 10).unwrap()], n));
    let results = bus.send_all(all).await.unwrap();
    assert!(results.iter().all(|result| result.is_ok()));
    w.eventually("some work", || async { first.stats().handled >= 50 }).await;
    // it stops while handlers run, and more messages than those wait
    let (stopped, ()) = tokio::join!(first.stop(), async { w.run.raise("go") });
    stopped.unwrap();

    let second = w.start(build().await).await;
    w.eventually("the last entry", || async {
        let mut entries = 0;
        for key in &keys {
            entries += w.book("shop", key).await.len() as u64;
        }
        entries >= MESSAGES
    })
    .await;
    let mut entries = Vec::new();
    for key in &keys {
        entries.extend(w.book("shop", key).await);
    }
    entries.sort_unstable();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>(), "{:?} {:?}", first.stats(), second.stats());
    assert!(second.stats().handled > 0, "the first one did it all: {:?}", first.stats());
    assert_eq!((first.stats().dead, second.stats().dead), (0, 0));
}

pub(crate) async fn two_instances_share_the_work(w: &World) {
    // each handles one at a time, and takes four into its hands; of the others, which go by their ids, some are always
    // for the second one
    const MESSAGES: u64 = 40;
    let build = || async { w.endpoint("shop").await.on(wait).on(work).saga::<Book>().concurrency(1).batch(1) };
    let (one, two) = (w.start(build().await).await, w.start(build().await).await);
    for n in 0..MESSAGES {
        one.bus().send(Wait::new(w.run, "k", n)).await.unwrap();
    }
    // each handler keeps its instance busy, so that two run only if both instances work
    w.eventually("two handlers", || async { w.run.notes().len() == 2 }).await;
    for n in 0..MESSAGES {
        w.run.raise(&format!("go {n}"));
    }
    w.eventually("all", || async { w.book("shop", "k").await.len() as u64 == MESSAGES }).await;
    let mut entries = w.book("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>());
    assert!(one.stats().handled > 0 && two.stats().handled > 0, "{:?} {:?}", one.stats(), two.stats());
    // one leaves, the other goes on
    one.stop().await.unwrap();
    two.bus().send(Work::new(w.run, "k3", 3)).await.unwrap();
    w.eventually("the rest", || async { w.book("shop", "k3").await == [3] }).await;
}

pub(crate) async fn a_send_only_endpoint_sends(w: &World) {
    let shop = shop(w).await;
    // not even started
    let sender = w.endpoint("web").await.route::<Work>("shop").build().await.unwrap();
    sender.bus().send(Work::new(w.run, "k", 1)).await.unwrap();
    let running = sender.start().await.unwrap();
    running.bus().send(Work::new(w.run, "k", 2)).await.unwrap();
    w.eventually("both", || async { w.book("shop", "k").await.len() == 2 }).await;
    let health = running.health().await;
    assert!(health.ok, "{health:?}");
    running.stop().await.unwrap();
    assert_eq!((running.stats().received, shop.stats().dead), (0, 0));
    let error = running.bus().request::<_, Entry>(Work::new(w.run, "k", 3), Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_closed() || error.is_unknown(), "{error:?}");
}

pub(crate) async fn one_of_two_instances_stops_under_load(w: &World) {
    const MESSAGES: u64 = 200;
    let build = || async { w.endpoint("shop").await.on(work).saga::<Book>().concurrency(8) };
    let (one, two) = (w.start(build().await).await, w.start(build().await).await);
    w.run.raise("held");
    for n in 0..MESSAGES {
        one.bus().send(Work::new(w.run, &format!("k{}", n % 3), n)).await.unwrap();
    }
    w.eventually("some work", || async { one.stats().handled + two.stats().handled >= 50 }).await;
    let (stopped, ()) = tokio::join!(one.stop(), async { w.run.raise("go") });
    stopped.unwrap();
    let entries = || async {
        let (a, b, c) = (w.book("shop", "k0").await, w.book("shop", "k1").await, w.book("shop", "k2").await);
        [a, b, c].concat()
    };
    w.eventually("the last entry", || async { entries().await.len() as u64 >= MESSAGES }).await;
    let mut entries = entries().await;
    entries.sort_unstable();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>());
}

pub(crate) async fn a_stop_that_runs_out_of_time_says_so_and_loses_nothing(w: &World) {
    let build = || async { w.endpoint("shop").await.on(wait).saga::<Book>() };
    let lame = build().await.drain(Duration::from_millis(50)).build().await.unwrap().start().await.unwrap();
    lame.bus().send(Wait::new(w.run, "k", 1)).await.unwrap();
    w.noted("wait 1", 1).await;
    let error = lame.stop().await.unwrap_err();
    assert!(error.is_closed() && error.to_string().contains("waiting for handlers and commits"), "{error:?}");
    lame.stop().await.unwrap();

    let next = w.start(build().await).await;
    w.run.raise("go 1");
    w.eventually("the entry", || async { !w.book("shop", "k").await.is_empty() }).await;
    // a message behind it shows that no second one is under way
    w.run.raise("go 2");
    next.bus().send(Wait::new(w.run, "later", 2)).await.unwrap();
    w.eventually("the later entry", || async { w.book("shop", "later").await == [2] }).await;
    assert_eq!(w.book("shop", "k").await, [1]);
}
