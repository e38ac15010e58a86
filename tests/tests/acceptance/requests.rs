//! Requests and replies.

use crate::fixture::{Entry, Fixture, Ledger, messages};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

messages! {
    AskPrice "req.ask-price"
    Price "req.price"
    Ignored "req.ignored"
    StartSlow "req.start-slow"
    Wake "req.wake"
    Finish "req.finish"
    Begin "req.begin"
    BeginOther "req.begin-other"
}

const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

async fn price(m: AskPrice, ctx: &mut Context) -> Result {
    ctx.reply(Price::new(m.run, &m.key, m.n * 2));
    Ok(())
}

async fn ignore(m: Ignored, _: &mut Context) -> Result {
    m.run.note("ignored");
    Ok(())
}

pub(crate) async fn a_request_is_answered(f: &Fixture) {
    f.start(f.endpoint("prices").await.on(price)).await;
    let asking = f.endpoint("asking").await.route::<AskPrice>("prices");
    let bus = f.start(asking).await.bus();
    // many at once: each gets its own
    let requests = (0..20).map(|n| {
        let (bus, question) = (bus.clone(), AskPrice::new(f.run, "k", n));
        tokio::spawn(async move { bus.request::<AskPrice, Price>(question, REPLY_TIMEOUT).await })
    });
    for (n, reply) in requests.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(reply.await.unwrap().unwrap().n, n as u64 * 2);
    }
}

pub(crate) async fn a_request_without_an_answer_is_unknown(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(ignore).on(price)).await;
    let message = Ignored::new(f.run, "k", 1);
    let error = shop.bus().request::<_, Price>(message, Duration::from_millis(30)).await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    f.noted("ignored", 1).await;
    // a reply of another type is said to be one
    let message = AskPrice::new(f.run, "k", 1);
    let error = shop.bus().request::<_, Ignored>(message, REPLY_TIMEOUT).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("req.price"), "{error:?}");
}

/// Answers the sender that started it, when its timeout fires or when it is told to. One of key `held` has no timeout.
#[derive(Default, Serialize, Deserialize)]
struct Slow {
    n: u64,
}

impl Saga for Slow {
    const NAME: &'static str = "slow";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<StartSlow>(|m| m.key.clone()).continued_by::<Finish>(|m| m.key.clone()).timeout::<Wake>();
    }
}

impl Handle<StartSlow> for Slow {
    async fn handle(&mut self, m: StartSlow, ctx: &mut SagaContext) -> Result {
        self.n = m.n;
        if m.key != "held" {
            ctx.timeout(Duration::from_millis(20), Wake::new(m.run, &m.key, 0));
        }
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

impl Handle<Finish> for Slow {
    async fn handle(&mut self, m: Finish, ctx: &mut SagaContext) -> Result {
        ctx.reply_to_originator(Price::new(m.run, &m.key, self.n + m.n));
        ctx.complete();
        Ok(())
    }
}

pub(crate) async fn a_later_message_replies_to_the_originator(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Slow>()).await;
    let asking = f.endpoint("asking").await.route::<StartSlow>("shop").route::<Finish>("shop");
    let bus = f.start(asking).await.bus();
    let request = bus.request::<StartSlow, Price>(StartSlow::new(f.run, "held", 6), REPLY_TIMEOUT);
    let client = shop.bus();
    let (reply, sent) = tokio::join!(request, client.send(Finish::new(f.run, "held", 10)));
    sent.unwrap();
    assert_eq!(reply.unwrap().n, 16);
    f.settled(&shop, "shop").await;
}

pub(crate) async fn a_timeout_replies_to_the_originator(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.saga::<Slow>()).await;
    let reply: Price = shop.bus().request(StartSlow::new(f.run, "k", 6), REPLY_TIMEOUT).await.unwrap();
    assert_eq!(reply.n, 7);
    f.eventually("its end", || async { f.admin().await.counts().await.unwrap()["saga"] == 0 }).await;
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

pub(crate) async fn a_reply_goes_to_the_saga_that_asked_and_to_no_other(f: &Fixture) {
    f.start(f.endpoint("prices").await.on(price)).await;
    let shop = f.endpoint("shop").await.saga::<Asking>().saga::<Other>().saga::<Ledger>();
    let shop = f.start(shop.route::<AskPrice>("prices")).await;
    let bus = shop.bus();
    // `b` of both sagas exists, and both would take a price with the key `b`
    bus.send(Begin::new(f.run, "b", 0)).await.unwrap();
    bus.send(BeginOther::new(f.run, "b", 0)).await.unwrap();
    f.eventually("both", || async { f.admin().await.counts().await.unwrap()["saga"] == 2 }).await;
    bus.send(Begin::new(f.run, "a", 21)).await.unwrap();
    f.eventually("the entry", || async { !f.ledger("shop", "prices").await.is_empty() }).await;
    assert_eq!(f.run.notes(), ["asking a 42"]);
    assert_eq!(f.ledger("shop", "prices").await, [42]);
    bus.send(Begin::new(f.run, "c", 4)).await.unwrap();
    f.eventually("another entry", || async { f.ledger("shop", "prices").await == [42, 8] }).await;
    assert_eq!(f.run.notes(), ["asking a 42", "asking c 8"]);
}

pub(crate) async fn a_reply_for_an_ended_saga_is_not_its_successors(f: &Fixture) {
    let shop = f.endpoint("shop").await.saga::<Asking>().saga::<Ledger>().route::<AskPrice>("prices");
    let shop = f.start(shop).await;
    // the price comes late: its endpoint runs later, and its queue is there
    f.endpoint("prices").await.on(price).build().await.unwrap();
    let bus = shop.bus();
    bus.send(Begin::new(f.run, "a", 21)).await.unwrap();
    f.eventually("the question", || async { shop.stats().handled == 1 }).await;
    let first = f.admin().await.saga("shop/asking", "a").await.unwrap().unwrap().instance;
    bus.publish(Price::new(f.run, "a", 0)).await.unwrap();
    f.eventually("the end", || async { f.admin().await.saga("shop/asking", "a").await.unwrap().is_none() }).await;
    bus.send(Begin::new(f.run, "a", 0)).await.unwrap();
    f.eventually("another instance", || async {
        f.admin().await.saga("shop/asking", "a").await.unwrap().is_some_and(|row| row.instance != first)
    })
    .await;
    f.start(f.endpoint("prices").await.on(price)).await;
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("which has ended"), "{letters:?}");
    assert_eq!(f.run.notes(), ["asking a 0"]);
}
