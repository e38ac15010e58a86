//! Requests and replies.

use crate::bed::{Bed, start};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "replies.ask")]
struct Ask(u64);

#[derive(Debug, Message, Serialize, Deserialize, PartialEq)]
#[message(name = "replies.answer")]
struct Answer(u64);

#[derive(Message, Serialize, Deserialize)]
#[message(name = "replies.silence")]
struct Silence;

async fn ask(m: Ask, ctx: &mut Context) -> Result {
    ctx.reply(Answer(m.0 * 2));
    Ok(())
}

async fn silence(_: Silence, _: &mut Context) -> Result {
    Ok(())
}

async fn a_request_gets_its_own_reply(bed: Bed) {
    let server = start(bed.endpoint("server").on(ask).on(silence)).await;
    let client = start(bed.endpoint("client").route::<Ask>("server").route::<Silence>("server")).await;
    let bus = client.bus();
    let many: Vec<_> = (0..20)
        .map(|n| {
            let bus = bus.clone();
            tokio::spawn(async move { bus.request::<Ask, Answer>(Ask(n), Duration::from_secs(15)).await })
        })
        .collect();
    for (n, reply) in many.into_iter().enumerate() {
        assert_eq!(reply.await.unwrap().unwrap(), Answer(n as u64 * 2));
    }
    let none = bus.request::<Silence, Answer>(Silence, Duration::from_millis(200)).await.unwrap_err();
    assert!(none.is_unknown(), "it may have been handled: {none:?}");
    client.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "replies.begin")]
struct Begin(u64);

#[derive(Message, Serialize, Deserialize)]
#[message(name = "replies.finish")]
struct Finish(u64);

#[derive(Default, Serialize, Deserialize)]
struct Slow;

impl Saga for Slow {
    const NAME: &'static str = "slow";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Begin>(|m| m.0).continued_by::<Finish>(|m| m.0);
    }
}

impl Handle<Begin> for Slow {
    async fn handle(&mut self, _: Begin, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

impl Handle<Finish> for Slow {
    async fn handle(&mut self, m: Finish, ctx: &mut SagaContext) -> Result {
        ctx.reply_to_originator(Answer(m.0 + 1));
        ctx.complete();
        Ok(())
    }
}

async fn a_saga_replies_to_who_started_it_however_much_later(bed: Bed) {
    let server = start(bed.endpoint("server").saga::<Slow>()).await;
    let client = start(bed.endpoint("client").route::<Begin>("server").route::<Finish>("server")).await;
    let bus = client.bus();
    let asked = tokio::spawn({
        let bus = bus.clone();
        async move { bus.request::<Begin, Answer>(Begin(4), Duration::from_secs(15)).await }
    });
    bus.send(Finish(4)).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), Answer(5));
    bed.quiet(&server).await;
    client.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "replies.question")]
struct Question {
    of: String,
}

/// Asks from within a saga: the reply finds the life that asked, without a key in it.
#[derive(Default, Serialize, Deserialize)]
struct Asker {
    answers: u64,
}

impl Saga for Asker {
    const NAME: &'static str = "asker";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Question>(|m| m.of.clone()).continued_by::<Answer>(|_| "nobody".to_string());
    }
}

impl Handle<Question> for Asker {
    async fn handle(&mut self, _: Question, ctx: &mut SagaContext) -> Result {
        ctx.send(Ask(3));
        Ok(())
    }
}

impl Handle<Answer> for Asker {
    async fn handle(&mut self, m: Answer, ctx: &mut SagaContext) -> Result {
        let key = ctx.saga_key().to_string();
        ctx.send(crate::bed::Seen(format!("{key} {}", m.0)));
        ctx.complete();
        Ok(())
    }
}

async fn a_reply_to_a_saga_finds_the_saga_that_asked(bed: Bed) {
    let recorder = bed.recorder().await;
    let server = start(bed.endpoint("server").on(ask)).await;
    let client = start(bed.endpoint("client").route::<Ask>("server").saga::<Asker>()).await;
    for of in ["one", "two"] {
        client.bus().send(Question { of: of.into() }).await.unwrap();
    }
    bed.expect(&client, &["one 6", "two 6"]).await;
    assert_eq!(bed.counts(&client).await["saga"], 0);
    for endpoint in [client, server, recorder] {
        endpoint.stop().await.unwrap();
    }
}

on_every_backend!(
    a_request_gets_its_own_reply,
    a_saga_replies_to_who_started_it_however_much_later,
    a_reply_to_a_saga_finds_the_saga_that_asked,
);
