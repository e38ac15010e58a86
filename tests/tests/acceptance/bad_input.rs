//! What cannot be handled becomes a dead letter with a reason, or is counted.

use crate::world::{Book, World, messages};
use sagabus::{
    Limits, RunningEndpoint, Timestamp,
    admin::Cursor,
    admin::DeadLetter,
    message::{Intent, UserHeader},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

messages! {
    Good "bad.good"
    Nobodys "bad.nobodys"
    Alarm "bad.alarm"
}

async fn good(m: Good, _: &mut Context) -> Result {
    m.run.note("good");
    Ok(())
}

#[derive(Default, Serialize, Deserialize)]
struct Clock;

impl Saga for Clock {
    const NAME: &'static str = "clock";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Good>(|m| m.key.clone()).timeout::<Alarm>();
    }
}

impl Handle<Good> for Clock {
    async fn handle(&mut self, _: Good, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

impl Handle<Alarm> for Clock {
    async fn handle(&mut self, m: Alarm, _: &mut SagaContext) -> Result {
        m.run.note("alarm");
        Ok(())
    }
}

fn body(w: &World) -> Vec<u8> {
    serde_json::to_vec(&Good::new(w.run, "k", 1)).unwrap()
}

/// The one dead letter; and the endpoint still works.
async fn buried(w: &World, shop: &RunningEndpoint) -> DeadLetter {
    w.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let mut letters = w.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(w.run.notes(), [""; 0]);
    shop.bus().send(Good::new(w.run, "k", 1)).await.unwrap();
    w.noted("good", 1).await;
    letters.remove(0)
}

async fn shop(w: &World) -> Arc<RunningEndpoint> {
    w.start(w.endpoint("shop").await.on(good).saga::<Book>()).await
}

pub(crate) async fn an_expired_message_is_dropped_and_counted(w: &World) {
    let shop = shop(w).await;
    let expired = SendOptions::new().expires_in(Duration::ZERO);
    shop.bus().send_with(Good::new(w.run, "k", 1), expired).await.unwrap();
    w.eventually("the drop", || async { !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["expired"], 1);
    assert!(w.run.notes().is_empty());
    let in_time = SendOptions::new().expires_in(Duration::from_secs(3600));
    shop.bus().send_with(Good::new(w.run, "k", 1), in_time).await.unwrap();
    w.noted("good", 1).await;
    assert_eq!(shop.stats().dead, 0);
}

pub(crate) async fn an_unknown_type_is_buried(w: &World) {
    let shop = shop(w).await;
    let bus = w.endpoint("other").await.build().await.unwrap().bus();
    bus.send_with(Nobodys::new(w.run, "k", 3), SendOptions::new().to("shop")).await.unwrap();
    let letter = buried(w, &shop).await;
    assert_eq!((letter.reason.as_str(), letter.handler.as_str()), ("unknown message type", ""));
    assert_eq!(letter.detail, ["endpoint shop has no handler for bad.nobodys"]);
    let body: Nobodys = serde_json::from_slice(&letter.message.body).unwrap();
    assert_eq!(body.n, 3);
}

pub(crate) async fn an_undecodable_body_is_buried(w: &World) {
    let shop = shop(w).await;
    w.inject("shop", "bad.good", Intent::Command, b"{\"run\": 1, \"key\"", |_| {}).await;
    let letter = buried(w, &shop).await;
    assert_eq!((letter.reason.as_str(), letter.handler.as_str()), ("undecodable", "bad.good"));
    assert!(letter.detail[0].contains("decode bad.good"), "{letter:?}");
    assert_eq!(&letter.message.body[..], b"{\"run\": 1, \"key\"");
}

pub(crate) async fn what_is_over_the_limits_is_buried(w: &World) {
    let mut small = Limits::default();
    small.body = 1000;
    let shop = w.start(w.endpoint("shop").await.on(good).limits(small)).await;
    let long = [body(w), vec![b' '; 1000]].concat();
    w.inject("shop", "bad.good", Intent::Command, &long, |_| {}).await;
    let letter = buried(w, &shop).await;
    assert_eq!(letter.reason, "over the limits");
    assert!(letter.detail[0].contains("1000 are allowed"), "{letter:?}");
    w.inject("shop", "bad.good", Intent::Command, &body(w), |headers| {
        for n in 0..100 {
            headers.user.insert(format!("h{n}"), UserHeader { value: "v".into(), propagate: false });
        }
    })
    .await;
    w.eventually("the second", || async { shop.stats().dead == 2 }).await;
    let letters = w.admin().await.dead_letters("shop", letter.id, 10).await.unwrap();
    assert!(letters[0].detail[0].contains("64 are allowed"), "{letters:?}");
}

pub(crate) async fn a_timeout_over_the_transport_is_buried(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(good).saga::<Clock>()).await;
    let alarm = serde_json::to_vec(&Alarm::new(w.run, "k", 1)).unwrap();
    w.inject("shop", "bad.alarm", Intent::Timeout, &alarm, |headers| headers.sent_at = Timestamp(1)).await;
    let letter = buried(w, &shop).await;
    assert_eq!(letter.reason, "not a timer's");
    // nor as a command
    w.inject("shop", "bad.alarm", Intent::Command, &alarm, |_| {}).await;
    w.eventually("the second", || async { shop.stats().dead == 2 }).await;
    assert_eq!(w.run.count("alarm"), 0);
}

pub(crate) async fn what_cannot_be_sent_is_refused_at_the_sender(w: &World) {
    let shop = shop(w).await;
    let bus = shop.bus();
    let error = bus.send(Nobodys::new(w.run, "k", 1)).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains(".route::<"), "{error:?}");
    let error = bus.send_with(Nobodys::new(w.run, "k", 1), SendOptions::new().to("nowhere")).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let error = bus.send(Good::new(w.run, &"x".repeat(2 << 20), 1)).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("1048576 are allowed"), "{error:?}");
    assert_eq!(shop.stats().received, 0);
}

async fn nobodys(m: Nobodys, _: &mut Context) -> Result {
    m.run.note(format!("nobodys {}", m.n));
    Ok(())
}

pub(crate) async fn a_buried_unknown_type_is_handled_by_a_later_program(w: &World) {
    let first = shop(w).await;
    let bus = first.bus();
    bus.send_with(Nobodys::new(w.run, "k", 3), SendOptions::new().to("shop")).await.unwrap();
    let letter = buried(w, &first).await;
    first.stop().await.unwrap();

    let second = w.start(w.endpoint("shop").await.on(good).on(nobodys)).await;
    let admin = second.admin().unwrap();
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 1);
    w.noted("nobodys 3", 1).await;
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 0);
    w.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
}

async fn forward(m: Good, ctx: &mut Context) -> Result {
    m.run.note("good");
    ctx.send(Nobodys::new(m.run, &m.key, 3));
    Ok(())
}

pub(crate) async fn a_message_for_a_missing_queue_is_buried_and_sent_again(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(forward).route::<Nobodys>("late")).await;
    shop.bus().send(Good::new(w.run, "k", 1)).await.unwrap();
    let admin = shop.admin().unwrap();
    w.eventually("the dead letter", || async {
        admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.len() == 1
    })
    .await;
    let letter = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.remove(0);
    assert_eq!(letter.message.headers.message_type, "bad.nobodys");
    assert!(format!("{} {:?}", letter.reason, letter.detail).contains("late"), "{letter:?}");
    // the engine hears of its commit a moment after others see it
    w.eventually("its sender took effect", || async { shop.stats().handled == 1 }).await;
    w.start(w.endpoint("late").await.on(nobodys)).await;
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 1);
    w.noted("nobodys 3", 1).await;
    w.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
    assert_eq!(w.run.count("good"), 1);
}
