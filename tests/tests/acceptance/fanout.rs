//! One event, several handlers.

use crate::fixture::{Entry, Fixture, Ledger, messages};
use sagabus::{MessageId, Runtime, admin::Cursor, message::Headers, prelude::*};
use serde::{Deserialize, Serialize};

messages! {
    Happened "fanout.happened"
}

macro_rules! saga {
    ($saga:ident, $name:literal, $number:literal) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $saga {
            seen: u64,
        }

        impl Saga for $saga {
            const NAME: &'static str = $name;
            type Key = String;
            fn routes(r: &mut Routes<Self>) {
                r.started_by::<Happened>(|m| m.key.clone());
            }
        }

        impl Handle<Happened> for $saga {
            async fn handle(&mut self, m: Happened, ctx: &mut SagaContext) -> Result {
                m.run.note($name);
                self.seen += 1;
                ctx.send(Entry::new(m.run, &m.key, $number));
                if $name == "sad" {
                    return Err(HandlerError::new("never"));
                }
                Ok(())
            }
        }
    };
}

saga!(Glad, "glad", 1);
saga!(Sad, "sad", 2);
saga!(Merry, "merry", 4);

async fn function(m: Happened, ctx: &mut Context) -> Result {
    m.run.note("function");
    ctx.send(Entry::new(m.run, &m.key, 3));
    Ok(())
}

async fn broken(m: Happened, ctx: &mut Context) -> Result {
    m.run.note("broken");
    ctx.send(Entry::new(m.run, &m.key, 5));
    Err(HandlerError::new("the mail server is gone"))
}

async fn sorted(f: &Fixture, endpoint: &str, key: &str) -> Vec<u64> {
    let mut entries = f.ledger(endpoint, key).await;
    entries.sort_unstable();
    entries
}

pub(crate) async fn each_handler_of_an_event_has_its_own_unit(f: &Fixture) {
    let builder = f.endpoint("shop").await.saga::<Glad>().saga::<Sad>().saga::<Merry>().saga::<Ledger>();
    let shop = f.start(builder.on_named("function", function).on_named("broken", broken)).await;
    let id = shop.bus().publish(Happened::new(f.run, "k", 0)).await.unwrap();
    f.eventually("the dead letters", || async { shop.stats().dead == 2 }).await;
    f.eventually("the entries", || async { f.ledger("shop", "k").await.len() == 3 }).await;
    f.settled(&shop, "shop").await;

    assert_eq!(sorted(f, "shop", "k").await, [1, 3, 4], "the others took effect once, the failed ones not at all");
    let runs = ["glad", "sad", "merry", "function", "broken"].map(|name| f.run.count(name));
    assert_eq!(runs, [1, 4, 1, 1, 4]);
    // the event and three entries
    let stats = shop.stats();
    assert_eq!((stats.received, stats.handled, stats.dead, stats.failures), (4, 6, 2, 8), "{stats:?}");
    let admin = shop.admin().unwrap();
    let mut letters = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items;
    letters.sort_by(|a, b| a.handler.cmp(&b.handler));
    assert_eq!(letters.iter().map(|letter| letter.handler.as_str()).collect::<Vec<_>>(), ["broken", "sad"]);
    for letter in &letters {
        assert_eq!((letter.reason.as_str(), letter.attempts), ("handler failed", 4), "{letter:?}");
        assert_eq!(letter.message.headers.message_id, id);
    }
    assert!(admin.saga("sad", "k").await.unwrap().is_none());
    assert_eq!(admin.saga("glad", "k").await.unwrap().unwrap().version, 1);
}

pub(crate) async fn the_same_message_id_is_handled_once(f: &Fixture) {
    let builder = f.endpoint("shop").await.on(function).saga::<Glad>().saga::<Merry>().saga::<Ledger>();
    let shop = f.start(builder).await;
    let id = MessageId(Runtime::system().uuid());
    // the id decides, not the content; before the first one is handled
    for key in ["k", "k", "another"] {
        shop.bus().publish_with(Happened::new(f.run, key, 0), SendOptions::new().id(id)).await.unwrap();
    }
    f.eventually("the entries", || async { f.ledger("shop", "k").await.len() == 3 }).await;
    let body = serde_json::to_vec(&Happened::new(f.run, "k", 0)).unwrap();
    let same = |headers: &mut Headers| headers.message_id = id;
    // and after it
    f.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    // once more through the transport, and once more through the bus
    f.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    shop.bus().publish_with(Happened::new(f.run, "k", 0), SendOptions::new().id(id)).await.unwrap();
    // a message behind them shows that they have been through
    shop.bus().publish(Happened::new(f.run, "later", 0)).await.unwrap();
    f.eventually("the last entries", || async { f.ledger("shop", "later").await.len() == 3 }).await;
    f.settled(&shop, "shop").await;
    assert_eq!((sorted(f, "shop", "k").await, sorted(f, "shop", "another").await), (vec![1, 3, 4], vec![]));
    assert_eq!(["function", "glad", "merry"].map(|name| f.run.count(name)), [2, 2, 2], "{:?}", shop.stats());
}

pub(crate) async fn a_duplicate_that_nothing_gives_away_takes_effect_once(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(function).saga::<Ledger>()).await;
    let id = MessageId(Runtime::system().uuid());
    let body = serde_json::to_vec(&Happened::new(f.run, "k", 0)).unwrap();
    // both say that they are the first
    let same = |headers: &mut Headers| (headers.message_id, headers.first_attempt) = (id, true);
    f.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    f.eventually("the entry", || async { f.ledger("shop", "k").await == [3] }).await;
    f.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    shop.bus().publish(Happened::new(f.run, "later", 0)).await.unwrap();
    f.eventually("the last entry", || async { f.ledger("shop", "later").await == [3] }).await;
    f.settled(&shop, "shop").await;
    assert_eq!(f.ledger("shop", "k").await, [3], "whatever their headers say");
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.dead, stats.deferred), (0, 0, 0), "{stats:?}");
}

pub(crate) async fn every_endpoint_that_subscribed_gets_the_event(f: &Fixture) {
    let one = f.start(f.endpoint("one").await.on(function).saga::<Ledger>()).await;
    let two = f.start(f.endpoint("two").await.on(function).saga::<Ledger>()).await;
    let sender = f.endpoint("sender").await.build().await.unwrap();
    sender.bus().publish(Happened::new(f.run, "k", 0)).await.unwrap();
    f.eventually("both entries", || async { one.stats().handled + two.stats().handled >= 4 }).await;
    f.settled(&one, "one").await;
    f.settled(&two, "two").await;
    assert_eq!((f.ledger("one", "k").await, f.ledger("two", "k").await), (vec![3], vec![3]));
    assert_eq!((one.stats().handled, two.stats().handled), (2, 2));
}
