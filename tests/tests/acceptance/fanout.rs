//! One event, several handlers.

use crate::world::{Book, Entry, World, messages};
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

async fn function(m: Happened, ctx: &mut Context) -> Result {
    m.run.note("function");
    ctx.send(Entry::new(m.run, &m.key, 3));
    Ok(())
}

pub(crate) async fn each_handler_of_an_event_has_its_own_unit(w: &World) {
    let builder = w.endpoint("shop").await.saga::<Glad>().saga::<Sad>().on_named("function", function).saga::<Book>();
    let shop = w.start(builder).await;
    shop.bus().publish(Happened::new(w.run, "k", 0)).await.unwrap();
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    w.eventually("both entries", || async { w.book("shop", "k").await.len() == 2 }).await;

    let mut entries = w.book("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, [1, 3], "the others took effect once, the failed one not at all");
    assert_eq!((w.run.count("glad"), w.run.count("sad"), w.run.count("function")), (1, 4, 1));
    let admin = shop.admin().unwrap();
    let letters = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].handler.as_str(), letters[0].attempts), ("sad", 4));
    assert!(admin.saga("sad", "k").await.unwrap().is_none());
    assert_eq!(admin.saga("glad", "k").await.unwrap().unwrap().version, 1);
}

pub(crate) async fn the_same_message_id_is_handled_once(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(function).saga::<Book>()).await;
    let id = MessageId(Runtime::system().uuid());
    let body = serde_json::to_vec(&Happened::new(w.run, "k", 0)).unwrap();
    let same = |headers: &mut Headers| headers.message_id = id;
    w.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    w.noted("function", 1).await;
    // once more through the transport, and once more through the bus
    w.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    shop.bus().publish_with(Happened::new(w.run, "k", 0), SendOptions::new().id(id)).await.unwrap();
    // a message behind them shows that they have been through
    shop.bus().publish(Happened::new(w.run, "later", 0)).await.unwrap();
    w.eventually("the last entry", || async { w.book("shop", "later").await == [3] }).await;
    w.eventually("the first one's", || async { !w.book("shop", "k").await.is_empty() }).await;
    w.eventually("all settled", || async { w.admin().await.counts().await.unwrap()["queue"] == 0 }).await;
    assert_eq!(w.book("shop", "k").await, [3]);
    assert_eq!(w.run.count("function"), 2, "{:?}", shop.stats());
}

pub(crate) async fn a_duplicate_that_nothing_gives_away_takes_effect_once(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(function).saga::<Book>()).await;
    let id = MessageId(Runtime::system().uuid());
    let body = serde_json::to_vec(&Happened::new(w.run, "k", 0)).unwrap();
    // both say that they are the first
    let same = |headers: &mut Headers| (headers.message_id, headers.first_attempt) = (id, true);
    w.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    w.eventually("the entry", || async { w.book("shop", "k").await == [3] }).await;
    w.inject("shop", "fanout.happened", sagabus::message::Intent::Event, &body, same).await;
    shop.bus().publish(Happened::new(w.run, "later", 0)).await.unwrap();
    w.eventually("the last entry", || async { w.book("shop", "later").await == [3] }).await;
    w.eventually("all settled", || async { w.admin().await.counts().await.unwrap()["queue"] == 0 }).await;
    assert_eq!(w.book("shop", "k").await, [3], "whoever says so");
    let stats = shop.stats();
    assert_eq!((stats.failures, stats.dead, stats.deferred), (0, 0, 0), "{stats:?}");
}
