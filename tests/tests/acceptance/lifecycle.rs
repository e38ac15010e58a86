//! An endpoint's lifecycle: pause, stop, several instances.

use crate::fixture::{Entry, Fixture, Ledger, messages};
use sagabus::{RunningEndpoint, prelude::*};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

messages! {
    Work "lifecycle.work"
    Wait "lifecycle.wait"
    Add "lifecycle.add"
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

async fn shop(f: &Fixture) -> Arc<RunningEndpoint> {
    f.start(f.endpoint("shop").await.on(work).on(wait).saga::<Ledger>()).await
}

pub(crate) async fn a_pause_takes_nothing_new(f: &Fixture) {
    let shop = shop(f).await;
    shop.bus().send(Wait::new(f.run, "k", 1)).await.unwrap();
    f.noted("wait 1", 1).await;
    shop.pause();
    assert!(shop.health().await.paused);
    // what was asked for before the pause may still come: a first message takes that
    shop.bus().send(Work::new(f.run, "k", 2)).await.unwrap();
    let before = shop.stats().received;
    for n in 3..30 {
        shop.bus().send(Work::new(f.run, "k", n)).await.unwrap();
    }
    // what is in flight goes on to its end
    f.run.raise("go 1");
    f.eventually("the handler's end", || async { shop.stats().handled >= 1 }).await;
    assert!(shop.stats().received <= before + 1, "{:?}", shop.stats());
    assert!(f.run.count("work") <= 1);
    shop.resume();
    f.eventually("all", || async { f.ledger("shop", "k").await.len() == 29 }).await;
    assert!(!shop.health().await.paused);
    let mut entries = f.ledger("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, (1..30).collect::<Vec<_>>());

    // nor when it has nothing to do
    f.settled(&shop, "shop").await;
    shop.pause();
    let before = shop.stats().received;
    shop.bus().send(Work::new(f.run, "idle", 1)).await.unwrap();
    // there is nothing to wait for when nothing is to happen
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((f.ledger("shop", "idle").await, shop.stats().received), (vec![], before));
    shop.resume();
    f.eventually("the message of the pause", || async { f.ledger("shop", "idle").await == [1] }).await;
}

/// Stopped again and again in the middle of its work. Each message takes effect once, and no handler's work is done
/// twice because of a stop: what had started is finished, what had not is handed back.
pub(crate) async fn a_stop_under_load_loses_and_doubles_nothing(f: &Fixture) {
    const MESSAGES: u64 = 300;
    const STOPS: usize = 5;
    f.run.raise("held");
    let build = || async { f.endpoint("shop").await.on(work).saga::<Ledger>().concurrency(16) };
    let first = f.start(build().await).await;
    let bus = first.bus();
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let all = (0..MESSAGES).map(|n| Work::new(f.run, &keys[usize::try_from(n % 10).unwrap()], n));
    let results = bus.send_all(all).await.unwrap();
    assert!(results.iter().all(|result| result.is_ok()));
    f.eventually("some work", || async { first.stats().handled >= 50 }).await;
    // it stops while handlers run, and more messages than those wait
    let (stopped, ()) = tokio::join!(first.stop(), async { f.run.raise("go") });
    stopped.unwrap();

    // each message is handled twice: by the function and, as an entry, by the ledger
    let mut instances = vec![first];
    let handled = |instances: &[Arc<RunningEndpoint>]| instances.iter().map(|one| one.stats().handled).sum::<u64>();
    while instances.len() <= STOPS {
        let next = f.start(build().await).await;
        let before = handled(&instances);
        f.eventually("some more", || async {
            let done = next.stats().handled;
            done >= 20 || before + done >= 2 * MESSAGES
        })
        .await;
        if instances.len() < STOPS {
            next.stop().await.unwrap();
        }
        instances.push(next);
    }
    f.eventually("the last entry", || async { handled(&instances) >= 2 * MESSAGES }).await;
    f.settled(&instances[STOPS], "shop").await;
    let mut entries = Vec::new();
    for key in &keys {
        entries.extend(f.ledger("shop", key).await);
    }
    entries.sort_unstable();
    let stats: Vec<_> = instances.iter().map(|instance| instance.stats()).collect();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>(), "{stats:?}");
    assert!(stats[1].handled > 0, "the first one did it all: {stats:?}");
    assert_eq!(handled(&instances), 2 * MESSAGES, "{stats:?}");
    assert!(stats.iter().all(|stats| (stats.duplicates, stats.dead) == (0, 0)), "{stats:?}");
}

pub(crate) async fn two_instances_share_the_work(f: &Fixture) {
    // each handles one at a time, and takes four into its hands; of the others, which go by their ids, some are always
    // for the second one
    const MESSAGES: u64 = 40;
    let build = || async { f.endpoint("shop").await.on(wait).on(work).saga::<Ledger>().concurrency(1).batch(1) };
    let (one, two) = (f.start(build().await).await, f.start(build().await).await);
    for n in 0..MESSAGES {
        one.bus().send(Wait::new(f.run, "k", n)).await.unwrap();
    }
    // each handler keeps its instance busy, so that two run only if both instances work
    f.eventually("two handlers", || async { f.run.notes().len() == 2 }).await;
    for n in 0..MESSAGES {
        f.run.raise(&format!("go {n}"));
    }
    f.eventually("all", || async { f.ledger("shop", "k").await.len() as u64 == MESSAGES }).await;
    let mut entries = f.ledger("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>());
    assert!(one.stats().handled > 0 && two.stats().handled > 0, "{:?} {:?}", one.stats(), two.stats());
    // one leaves, the other goes on
    one.stop().await.unwrap();
    two.bus().send(Work::new(f.run, "k3", 3)).await.unwrap();
    f.eventually("the rest", || async { f.ledger("shop", "k3").await == [3] }).await;
}

pub(crate) async fn a_send_only_endpoint_sends(f: &Fixture) {
    let shop = shop(f).await;
    // not even started
    let sender = f.endpoint("web").await.route::<Work>("shop").build().await.unwrap();
    sender.bus().send(Work::new(f.run, "k", 1)).await.unwrap();
    let running = sender.start().await.unwrap();
    running.bus().send(Work::new(f.run, "k", 2)).await.unwrap();
    f.eventually("both", || async { f.ledger("shop", "k").await.len() == 2 }).await;
    let health = running.health().await;
    assert!(health.ok, "{health:?}");
    running.stop().await.unwrap();
    assert_eq!((running.stats().received, shop.stats().dead), (0, 0));
    let error = running.bus().request::<_, Entry>(Work::new(f.run, "k", 3), Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_closed() || error.is_unknown(), "{error:?}");
}

pub(crate) async fn one_of_two_instances_stops_under_load(f: &Fixture) {
    const MESSAGES: u64 = 200;
    let build = || async { f.endpoint("shop").await.on(work).saga::<Ledger>().concurrency(8) };
    let (one, two) = (f.start(build().await).await, f.start(build().await).await);
    f.run.raise("held");
    for n in 0..MESSAGES {
        one.bus().send(Work::new(f.run, &format!("k{}", n % 3), n)).await.unwrap();
    }
    f.eventually("some work", || async { one.stats().handled + two.stats().handled >= 50 }).await;
    let (stopped, ()) = tokio::join!(one.stop(), async { f.run.raise("go") });
    stopped.unwrap();
    let entries = || async {
        let (a, b, c) = (f.ledger("shop", "k0").await, f.ledger("shop", "k1").await, f.ledger("shop", "k2").await);
        [a, b, c].concat()
    };
    f.eventually("the last entry", || async { entries().await.len() as u64 >= MESSAGES }).await;
    let mut entries = entries().await;
    entries.sort_unstable();
    assert_eq!(entries, (0..MESSAGES).collect::<Vec<_>>());
}

pub(crate) async fn a_stop_that_runs_out_of_time_says_so_and_loses_nothing(f: &Fixture) {
    let build = || async { f.endpoint("shop").await.on(wait).saga::<Ledger>() };
    let lame = build().await.drain(Duration::from_millis(50)).build().await.unwrap().start().await.unwrap();
    lame.bus().send(Wait::new(f.run, "k", 1)).await.unwrap();
    f.noted("wait 1", 1).await;
    let error = lame.stop().await.unwrap_err();
    assert!(error.is_closed() && error.to_string().contains("waiting for handlers and commits"), "{error:?}");
    lame.stop().await.unwrap();

    let next = f.start(build().await).await;
    f.run.raise("go 1");
    f.eventually("the entry", || async { !f.ledger("shop", "k").await.is_empty() }).await;
    // a message behind it shows that no second one is under way
    f.run.raise("go 2");
    next.bus().send(Wait::new(f.run, "later", 2)).await.unwrap();
    f.eventually("the later entry", || async { f.ledger("shop", "later").await == [2] }).await;
    assert_eq!(f.ledger("shop", "k").await, [1]);
}

/// What was added, in a handler that waits until the test lets it go on.
#[derive(Default, Serialize, Deserialize)]
struct List {
    added: Vec<u64>,
}

impl Saga for List {
    const NAME: &'static str = "list";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key.clone());
    }
}

impl Handle<Add> for List {
    async fn handle(&mut self, m: Add, _: &mut SagaContext) -> Result {
        m.run.until("go").await;
        // a chance for another instance to come between
        tokio::task::yield_now().await;
        self.added.push(m.n);
        Ok(())
    }
}

/// Three instances, few keys, so that they meet at the same sagas: no update is lost, no message is handled twice.
pub(crate) async fn instances_that_meet_at_the_same_sagas_lose_no_update(f: &Fixture) {
    const MESSAGES: u64 = 240;
    let keys = ["a", "b", "c", "d"];
    let build =
        || async { f.endpoint("shop").await.saga::<List>().lease(Duration::from_secs(2)).batch(4).concurrency(4) };
    let instances = [f.start(build().await).await, f.start(build().await).await, f.start(build().await).await];
    for (n, key) in (0..MESSAGES).zip(keys.iter().cycle()) {
        instances[0].bus().send(Add::new(f.run, key, n)).await.unwrap();
    }
    // each holds what it has, so that what it has not goes to others as soon as they share the work
    f.eventually("work for two", || async {
        instances.iter().filter(|instance| instance.stats().received > 0).count() > 1
    })
    .await;
    f.run.raise("go");
    let handled = || instances.iter().map(|instance| instance.stats().handled).sum::<u64>();
    f.eventually("all", || async { handled() >= MESSAGES }).await;
    for instance in &instances {
        f.settled(instance, "shop").await;
    }
    let mut added = Vec::new();
    for key in keys {
        let row = f.admin().await.saga("shop/list", key).await.unwrap().unwrap();
        let list: List = serde_json::from_slice(&row.state).unwrap();
        assert_eq!(row.version, list.added.len() as i64, "a version per message");
        added.extend(list.added);
    }
    added.sort_unstable();
    assert_eq!(added, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(handled(), MESSAGES);
    let working = instances.iter().filter(|instance| instance.stats().handled > 0).count();
    assert!(working > 1, "one has done everything");
}

/// As programs name them: by URLs, which share what they can within a process.
pub(crate) async fn endpoints_that_are_named_by_urls_meet(f: &Fixture) {
    let (one, two) =
        (f.start(f.by_url("shop").on(work).saga::<Ledger>()).await, f.by_url("shop").on(work).saga::<Ledger>());
    let two = f.start(two).await;
    let sender = f.by_url("web").route::<Work>("shop").build().await.unwrap();
    for n in 0..20 {
        sender.bus().send(Work::new(f.run, "k", n)).await.unwrap();
    }
    f.eventually("all", || async { one.stats().handled + two.stats().handled >= 40 }).await;
    let row = one.admin().unwrap().saga("ledger", "k").await.unwrap().unwrap();
    let mut entries = serde_json::from_slice::<Ledger>(&row.state).unwrap().entries;
    entries.sort_unstable();
    assert_eq!(entries, (0..20).collect::<Vec<_>>());
    assert_eq!((one.stats().dead, two.stats().dead), (0, 0));
}
