//! Messages that no handler gets.

use crate::bed::{Bed, Seen, start};
use sagabus::{Limits, SendOptions, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "refused.work")]
struct Work {
    text: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "refused.stranger")]
struct Stranger {
    n: u32,
}

async fn work(m: Work, ctx: &mut Context) -> Result {
    ctx.send(Seen(m.text));
    Ok(())
}

fn text(text: &str) -> Work {
    Work { text: text.into() }
}

async fn an_expired_message_is_dropped_and_counted(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").on(work)).await;
    let bus = shop.bus();
    bus.send_with(text("too late"), SendOptions::new().expires_in(Duration::ZERO)).await.unwrap();
    bus.send_with(text("in time"), SendOptions::new().expires_in(Duration::from_secs(600))).await.unwrap();
    bed.expect(&shop, &["in time"]).await;
    assert_eq!(shop.stats().dropped.get("expired"), Some(&1), "{:?}", shop.stats());
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_message_that_nobody_handles_is_a_dead_letter(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").on(work)).await;
    shop.bus().send_with(Stranger { n: 1 }, SendOptions::new().to("shop")).await.unwrap();
    shop.bus().send(text("beside")).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.attempts, letter.handler.as_str()), ("unknown message type", 0, ""));
    assert!(letter.detail[0].contains("refused.stranger"), "{:?}", letter.detail);
    bed.expect(&shop, &["beside"]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn what_is_too_large_is_refused_here_and_buried_there(bed: Bed) {
    let recorder = bed.recorder().await;
    let mut small = Limits::default();
    small.body = 1000;
    let shop = start(bed.endpoint("shop").limits(small).on(work)).await;
    let error = shop.bus().send(text(&"x".repeat(2000))).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("1000 are allowed"), "{error}");
    let generous = bed.endpoint("generous").route::<Work>("shop").build().await.unwrap();
    generous.bus().send(text(&"x".repeat(2000))).await.unwrap();
    generous.bus().send(text("small")).await.unwrap();
    let letter = bed.dead_letters(&shop, "shop", 1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.attempts), ("over the limits", 0));
    bed.expect(&shop, &["small"]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_command_to_nowhere_is_an_error(bed: Bed) {
    let shop = start(bed.endpoint("shop").on(work)).await;
    let error = shop.bus().send(Stranger { n: 1 }).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains(".route::<"), "{error}");
    let error = shop.bus().send_with(text("x"), SendOptions::new().to("nobody")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nobody"), "{error}");
    // an event without subscribers is no error: that is what events are for
    shop.bus().publish(Stranger { n: 1 }).await.unwrap();
    shop.stop().await.unwrap();
}

on_every_backend!(
    an_expired_message_is_dropped_and_counted,
    a_message_that_nobody_handles_is_a_dead_letter,
    what_is_too_large_is_refused_here_and_buried_there,
    a_command_to_nowhere_is_an_error,
);
