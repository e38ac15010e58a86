//! One event, several handlers; and the same message twice.

use crate::bed::{Bed, Seen, start};
use sagabus::{MessageId, SendOptions, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "day.placed")]
struct Placed {
    order: u64,
}

macro_rules! listening_saga {
    ($saga:ident, $name:literal) => {
        #[derive(Default, Serialize, Deserialize)]
        struct $saga {
            orders: u64,
        }

        impl Saga for $saga {
            const NAME: &'static str = $name;
            type Key = u64;
            fn routes(r: &mut Routes<Self>) {
                r.started_by::<Placed>(|m| m.order);
            }
        }

        impl Handle<Placed> for $saga {
            async fn handle(&mut self, m: Placed, ctx: &mut SagaContext) -> Result {
                self.orders += 1;
                ctx.send(Seen(format!("{} {} {}", $name, m.order, self.orders)));
                Ok(())
            }
        }
    };
}
listening_saga!(Billing, "billing");
listening_saga!(Stock, "stock");

async fn broken(_: Placed, ctx: &mut Context) -> Result {
    ctx.send(Seen("a ghost".into()));
    Err(HandlerError::new("the mail server is gone"))
}

async fn mail(m: Placed, ctx: &mut Context) -> Result {
    ctx.send(Seen(format!("mail {}", m.order)));
    Ok(())
}

/// Two sagas and two functions get the event; one fails, and that is nobody else's business.
async fn one_event_reaches_several_handlers(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop =
        start(bed.endpoint("shop").saga::<Billing>().saga::<Stock>().on_named("mail", mail).on_named("broken", broken))
            .await;
    let id = shop.bus().publish(Placed { order: 7 }).await.unwrap();
    let letters = bed.dead_letters(&shop, "shop", 1).await;
    assert_eq!(
        (letters[0].handler.as_str(), letters[0].attempts, letters[0].message.headers.message_id),
        ("broken", 4, id)
    );
    assert_eq!(letters[0].reason, "handler failed");
    bed.expect(&shop, &["billing 7 1", "stock 7 1", "mail 7"]).await;
    let stats = shop.stats();
    assert_eq!((stats.received, stats.handled, stats.dead, stats.failures), (1, 3, 1, 4), "{stats:?}");
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

/// The id decides, not the content; before and after the first one was handled.
async fn the_same_id_takes_effect_once(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Billing>().saga::<Stock>().on_named("mail", mail)).await;
    let id = MessageId(uuid::Uuid::now_v7());
    for order in [1, 1, 2] {
        shop.bus().publish_with(Placed { order }, SendOptions::new().id(id)).await.unwrap();
    }
    bed.expect(&shop, &["billing 1 1", "stock 1 1", "mail 1"]).await;
    shop.bus().publish_with(Placed { order: 1 }, SendOptions::new().id(id)).await.unwrap();
    shop.bus().publish(Placed { order: 3 }).await.unwrap();
    bed.expect(&shop, &["billing 1 1", "stock 1 1", "mail 1", "billing 3 1", "stock 3 1", "mail 3"]).await;
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

/// An event of another endpoint reaches everyone who subscribed, each once.
async fn every_endpoint_that_subscribed_gets_the_event(bed: Bed) {
    let recorder = bed.recorder().await;
    let one = start(bed.endpoint("one").on(mail)).await;
    let two = start(bed.endpoint("two").on(mail)).await;
    let sender = bed.endpoint("sender").build().await.unwrap();
    sender.bus().publish(Placed { order: 1 }).await.unwrap();
    bed.expect(&one, &["mail 1", "mail 1"]).await;
    assert_eq!((one.stats().handled, two.stats().handled), (1, 1));
    for endpoint in [one, two, recorder] {
        endpoint.stop().await.unwrap();
    }
}

on_every_backend!(
    one_event_reaches_several_handlers,
    the_same_id_takes_effect_once,
    every_endpoint_that_subscribed_gets_the_event,
);
