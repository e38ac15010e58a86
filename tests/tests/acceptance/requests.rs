//! Requests and replies.

use crate::world::{Book, Entry, World, messages};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    AskPrice "req.ask-price"
    Price "req.price"
    Ignored "req.ignored"
    StartSlow "req.start-slow"
    Wake "req.wake"
    Begin "req.begin"
    BeginOther "req.begin-other"
}

const SOON: Duration = Duration::from_secs(20);

async fn price(m: AskPrice, ctx: &mut Context) -> Result {
    ctx.reply(Price::new(m.run, &m.key, m.n * 2));
    Ok(())
}

async fn ignore(m: Ignored, _: &mut Context) -> Result {
    m.run.note("ignored");
    Ok(())
}

pub(crate) async fn a_request_is_answered(w: &World) {
    w.start(w.endpoint("prices").await.on(price)).await;
    let asking = w.endpoint("asking").await.route::<AskPrice>("prices");
    let bus = w.start(asking).await.bus();
    let ask = |n| bus.request::<AskPrice, Price>(AskPrice::new(w.run, "k", n), SOON);
    let (one, two) = tokio::join!(ask(10), ask(20));
    assert_eq!((one.unwrap().n, two.unwrap().n), (20, 40));
}

pub(crate) async fn a_request_without_an_answer_is_unknown(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(ignore).on(price)).await;
    let message = Ignored::new(w.run, "k", 1);
    let error = shop.bus().request::<_, Price>(message, Duration::from_millis(30)).await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    w.noted("ignored", 1).await;
    // a reply of another type is said to be one
    let message = AskPrice::new(w.run, "k", 1);
    let error = shop.bus().request::<_, Ignored>(message, SOON).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("req.price"), "{error:?}");
}

/// Answers whoever started it, when its timeout fires.
#[derive(Default, Serialize, Deserialize)]
struct Slow {
    n: u64,
}

impl Saga for Slow {
    const NAME: &'static str = "slow";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<StartSlow>(|m| m.key.clone()).timeout::<Wake>();
    }
}

impl Handle<StartSlow> for Slow {
    async fn handle(&mut self, m: StartSlow, ctx: &mut SagaContext) -> Result {
        self.n = m.n;
        ctx.timeout(Duration::from_millis(20), Wake::new(m.run, &m.key, 0));
        Ok(())
    }
}

impl Handle<Wake> for Slow {
    async fn handle(&mut self, m: Wake, ctx: &mut SagaContext) -> Result {
        ctx.reply_to_originator(Price::new(m.run, &m.key, self.n + 1));
        ctx.complete();
        Ok(())
    }
}

pub(crate) async fn a_timeout_replies_to_the_originator(w: &World) {
    let shop = w.start(w.endpoint("shop").await.saga::<Slow>()).await;
    let reply: Price = shop.bus().request(StartSlow::new(w.run, "k", 6), SOON).await.unwrap();
    assert_eq!(reply.n, 7);
    w.eventually("its end", || async { w.admin().await.counts().await.unwrap()["saga"] == 0 }).await;
}

/// Two sagas that could both take a price; only the one that asked may get it.
macro_rules! asking {
    ($saga:ident, $name:literal, $begin:ident) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $saga;

        impl Saga for $saga {
            const NAME: &'static str = $name;
            type Key = String;
            fn routes(r: &mut Routes<Self>) {
                r.started_by::<$begin>(|m| m.key.clone()).continued_by::<Price>(|m| m.key.clone());
            }
        }

        impl Handle<$begin> for $saga {
            async fn handle(&mut self, m: $begin, ctx: &mut SagaContext) -> Result {
                if m.n > 0 {
                    // under a key that is not its own: the reply must find it without one
                    ctx.send(AskPrice::new(m.run, "b", m.n));
                }
                Ok(())
            }
        }

        impl Handle<Price> for $saga {
            async fn handle(&mut self, m: Price, ctx: &mut SagaContext) -> Result {
                m.run.note(format!("{} {} {}", $name, ctx.saga_key(), m.n));
                ctx.send(Entry::new(m.run, "prices", m.n));
                if m.n == 0 {
                    ctx.complete();
                }
                Ok(())
            }
        }
    };
}

asking!(Asking, "asking", Begin);
asking!(Other, "other", BeginOther);

pub(crate) async fn a_reply_goes_to_the_saga_that_asked_and_to_no_other(w: &World) {
    w.start(w.endpoint("prices").await.on(price)).await;
    let shop = w.endpoint("shop").await.saga::<Asking>().saga::<Other>().saga::<Book>();
    let shop = w.start(shop.route::<AskPrice>("prices")).await;
    let bus = shop.bus();
    // `b` of both sagas exists, and both would take a price with the key `b`
    bus.send(Begin::new(w.run, "b", 0)).await.unwrap();
    bus.send(BeginOther::new(w.run, "b", 0)).await.unwrap();
    w.eventually("both", || async { w.admin().await.counts().await.unwrap()["saga"] == 2 }).await;
    bus.send(Begin::new(w.run, "a", 21)).await.unwrap();
    w.eventually("the entry", || async { !w.book("shop", "prices").await.is_empty() }).await;
    assert_eq!(w.run.notes(), ["asking a 42"]);
    assert_eq!(w.book("shop", "prices").await, [42]);
}

pub(crate) async fn a_reply_for_an_ended_saga_is_no_new_lifes(w: &World) {
    let shop = w.endpoint("shop").await.saga::<Asking>().saga::<Book>().route::<AskPrice>("prices");
    let shop = w.start(shop).await;
    // the price comes late: its endpoint runs later, and its queue is there
    w.endpoint("prices").await.on(price).build().await.unwrap();
    let bus = shop.bus();
    bus.send(Begin::new(w.run, "a", 21)).await.unwrap();
    w.eventually("the question", || async { shop.stats().handled == 1 }).await;
    let first = w.admin().await.saga("shop/asking", "a").await.unwrap().unwrap().instance;
    bus.publish(Price::new(w.run, "a", 0)).await.unwrap();
    w.eventually("the end", || async { w.admin().await.saga("shop/asking", "a").await.unwrap().is_none() }).await;
    bus.send(Begin::new(w.run, "a", 0)).await.unwrap();
    w.eventually("another life", || async {
        w.admin().await.saga("shop/asking", "a").await.unwrap().is_some_and(|row| row.instance != first)
    })
    .await;
    w.start(w.endpoint("prices").await.on(price)).await;
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("which has ended"), "{letters:?}");
    assert_eq!(w.run.notes(), ["asking a 0"]);
}
