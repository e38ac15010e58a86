//! What cannot be handled becomes a dead letter with a reason, or is counted.

use crate::fixture::{Fixture, Ledger, messages};
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
    Unhandled "bad.unhandled"
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

fn body(f: &Fixture) -> Vec<u8> {
    serde_json::to_vec(&Good::new(f.run, "k", 1)).unwrap()
}

/// The one dead letter; and the endpoint still works.
async fn dead_letter(f: &Fixture, shop: &RunningEndpoint) -> DeadLetter {
    f.eventually("the dead letter", || async { shop.stats().dead == 1 }).await;
    let mut letters = f.admin().await.dead_letters("shop", 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(f.run.notes(), [""; 0]);
    shop.bus().send(Good::new(f.run, "k", 1)).await.unwrap();
    f.noted("good", 1).await;
    letters.remove(0)
}

async fn shop(f: &Fixture) -> Arc<RunningEndpoint> {
    f.start(f.endpoint("shop").await.on(good).saga::<Ledger>()).await
}

pub(crate) async fn an_expired_message_is_dropped_and_counted(f: &Fixture) {
    let shop = shop(f).await;
    let expired = SendOptions::new().expires_in(Duration::ZERO);
    shop.bus().send_with(Good::new(f.run, "k", 1), expired).await.unwrap();
    f.eventually("the drop", || async { !shop.stats().dropped.is_empty() }).await;
    assert_eq!(shop.stats().dropped["expired"], 1);
    assert!(f.run.notes().is_empty());
    let in_time = SendOptions::new().expires_in(Duration::from_secs(3600));
    shop.bus().send_with(Good::new(f.run, "k", 1), in_time).await.unwrap();
    f.noted("good", 1).await;
    assert_eq!(shop.stats().dead, 0);
}

pub(crate) async fn an_unknown_type_is_dead_lettered(f: &Fixture) {
    let shop = shop(f).await;
    let bus = f.endpoint("other").await.build().await.unwrap().bus();
    bus.send_with(Unhandled::new(f.run, "k", 3), SendOptions::new().to("shop")).await.unwrap();
    let letter = dead_letter(f, &shop).await;
    assert_eq!((letter.reason.as_str(), letter.handler.as_str()), ("unknown message type", ""));
    assert_eq!(letter.attempts, 0);
    assert_eq!(letter.detail, ["endpoint shop has no handler for bad.unhandled"]);
    let body: Unhandled = serde_json::from_slice(&letter.message.body).unwrap();
    assert_eq!(body.n, 3);
}

pub(crate) async fn an_undecodable_body_is_dead_lettered(f: &Fixture) {
    let shop = shop(f).await;
    f.inject("shop", "bad.good", Intent::Command, b"{\"run\": 1, \"key\"", |_| {}).await;
    let letter = dead_letter(f, &shop).await;
    assert_eq!((letter.reason.as_str(), letter.handler.as_str()), ("undecodable", "bad.good"));
    assert!(letter.detail[0].contains("decode bad.good"), "{letter:?}");
    assert_eq!(&letter.message.body[..], b"{\"run\": 1, \"key\"");
}

pub(crate) async fn what_is_over_the_limits_is_dead_lettered(f: &Fixture) {
    let mut small = Limits::default();
    small.body = 1000;
    let shop = f.start(f.endpoint("shop").await.on(good).limits(small)).await;
    let long = [body(f), vec![b' '; 1000]].concat();
    f.inject("shop", "bad.good", Intent::Command, &long, |_| {}).await;
    let letter = dead_letter(f, &shop).await;
    assert_eq!(letter.reason, "over the limits");
    assert!(letter.detail[0].contains("1000 are allowed"), "{letter:?}");
    f.inject("shop", "bad.good", Intent::Command, &body(f), |headers| {
        for n in 0..100 {
            headers.user.insert(format!("h{n}"), UserHeader { value: "v".into(), propagate: false });
        }
    })
    .await;
    f.eventually("the second", || async { shop.stats().dead == 2 }).await;
    let letters = f.admin().await.dead_letters("shop", letter.id, 10).await.unwrap();
    // a broker's transport counts the headers while it decodes them, and the endpoint is not asked
    let limit = if f.environment.setup.is_broker() { "more than 64" } else { "64 are allowed" };
    assert!(letters[0].detail[0].contains(limit), "{letters:?}");

    // the endpoint itself refuses to send such a message; one with other limits does not
    let long = Good::new(f.run, &"x".repeat(2000), 1);
    let error = shop.bus().send(long.clone()).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("1000 are allowed"), "{error:?}");
    let generous = f.endpoint("generous").await.route::<Good>("shop").build().await.unwrap();
    generous.bus().send(long).await.unwrap();
    f.eventually("the third", || async { shop.stats().dead == 3 }).await;
    let letters = f.admin().await.dead_letters("shop", letters[0].id, 10).await.unwrap();
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("over the limits", 0), "{letters:?}");
}

pub(crate) async fn a_timeout_over_the_transport_is_dead_lettered(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(good).saga::<Clock>()).await;
    let alarm = serde_json::to_vec(&Alarm::new(f.run, "k", 1)).unwrap();
    f.inject("shop", "bad.alarm", Intent::Timeout, &alarm, |headers| headers.sent_at = Timestamp(1)).await;
    let letter = dead_letter(f, &shop).await;
    assert_eq!(letter.reason, "not a timer's");
    // nor as a command
    f.inject("shop", "bad.alarm", Intent::Command, &alarm, |_| {}).await;
    f.eventually("the second", || async { shop.stats().dead == 2 }).await;
    assert_eq!(f.run.count("alarm"), 0);
}

pub(crate) async fn what_cannot_be_sent_is_refused_at_the_sender(f: &Fixture) {
    let shop = shop(f).await;
    let bus = shop.bus();
    let error = bus.send(Unhandled::new(f.run, "k", 1)).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains(".route::<"), "{error:?}");
    let error = bus.send_with(Unhandled::new(f.run, "k", 1), SendOptions::new().to("nowhere")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nowhere"), "{error:?}");
    // an event without subscribers is no error: that is what events are for
    bus.publish(Unhandled::new(f.run, "k", 1)).await.unwrap();
    let error = bus.send(Good::new(f.run, &"x".repeat(2 << 20), 1)).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("1048576 are allowed"), "{error:?}");
    assert_eq!(shop.stats().received, 0);
}

async fn unhandled(m: Unhandled, _: &mut Context) -> Result {
    m.run.note(format!("unhandled {}", m.n));
    Ok(())
}

pub(crate) async fn a_dead_lettered_unknown_type_is_handled_by_a_later_program(f: &Fixture) {
    let first = shop(f).await;
    let bus = first.bus();
    bus.send_with(Unhandled::new(f.run, "k", 3), SendOptions::new().to("shop")).await.unwrap();
    let letter = dead_letter(f, &first).await;
    first.stop().await.unwrap();

    let second = f.start(f.endpoint("shop").await.on(good).on(unhandled)).await;
    let admin = second.admin().unwrap();
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 1);
    f.noted("unhandled 3", 1).await;
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 0);
    f.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
}

async fn forward(m: Good, ctx: &mut Context) -> Result {
    m.run.note("good");
    ctx.send(Unhandled::new(m.run, &m.key, 3));
    Ok(())
}

pub(crate) async fn a_message_for_a_missing_queue_is_dead_lettered_and_sent_again(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(forward).route::<Unhandled>("late")).await;
    shop.bus().send(Good::new(f.run, "k", 1)).await.unwrap();
    let admin = shop.admin().unwrap();
    f.eventually("the dead letter", || async {
        admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.len() == 1
    })
    .await;
    let letter = admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.remove(0);
    assert_eq!(letter.message.headers.message_type, "bad.unhandled");
    assert!(format!("{} {:?}", letter.reason, letter.detail).contains("late"), "{letter:?}");
    // the engine hears of its commit a moment after others see it
    f.eventually("its sender took effect", || async { shop.stats().handled == 1 }).await;
    f.start(f.endpoint("late").await.on(unhandled)).await;
    assert_eq!(admin.retry_dead_letters(&[letter.id]).await.unwrap(), 1);
    f.noted("unhandled 3", 1).await;
    f.eventually("its removal", || async { admin.dead_letters(&Cursor::start(), 10).await.unwrap().items.is_empty() })
        .await;
    assert_eq!(f.run.count("good"), 1);
}
