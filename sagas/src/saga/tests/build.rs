use super::model::*;
use crate::{Handle, Handlers, Result, Routes, Saga, SagaContext, saga_routes};
use sagabus_core::Context;
use sagabus_macros::Message;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Any<const CASE: u8>;

impl<const CASE: u8> Saga for Any<CASE> {
    const NAME: &'static str = match CASE {
        1 => "with/slash",
        2 => "with space",
        _ => "order",
    };
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        match CASE {
            0 => drop(r.continued_by::<Paid>(|m| m.order.clone())),
            3 => drop(r.started_by::<Placed>(|m| m.order.clone()).continued_by::<Placed>(|m| m.order.clone())),
            4 => {
                r.started_by::<Due>(|m| m.note.clone()).timeout::<Due>();
            }
            5 => drop(r.started_by::<Placed>(|m| m.order.clone()).continued_by::<PlacedToo>(|_| String::new())),
            6 => drop(
                r.started_by::<Placed>(|m| m.order.clone())
                    .continued_by_alias::<Tracked>("no good", |m| m.tracking.clone()),
            ),
            _ => drop(r.started_by::<Placed>(|m| m.order.clone())),
        }
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.placed", crate = "sagabus_core")]
struct PlacedToo;

macro_rules! handles {
    ($($message:ident)*) => {$(
        impl<const CASE: u8> Handle<$message> for Any<CASE> {
            async fn handle(&mut self, _: $message, _: &mut SagaContext) -> Result {
                Ok(())
            }
        }
    )*};
}
handles!(Placed PlacedToo Paid Tracked Due);

fn error<const CASE: u8>() -> String {
    let error = saga_routes::<Any<CASE>>("shop").map(drop).unwrap_err();
    assert!(error.is_invalid());
    error.to_string()
}

#[test]
fn mistakes_in_routes_name_saga_message_and_fix() {
    let none = error::<0>();
    assert!(none.contains("saga `order` (Any<0>) has no message that starts it: add `.started_by::<…>"), "{none}");
    assert!(error::<1>().contains("contains '/'"));
    assert!(error::<2>().contains("contains ' '"));
    assert!(error::<3>().contains("routes shop.placed twice"));
    assert!(error::<4>().contains("uses order.due both as a timeout and as an ordinary message"));
    let two = error::<5>();
    assert!(two.contains("two types with the wire name shop.placed: Placed and PlacedToo"), "{two}");
    assert!(error::<6>().contains("alias name \"no good\""));
    assert!(saga_routes::<Order>("bad endpoint").is_err());
    assert_eq!(saga_routes::<Order>("shop").unwrap().len(), 4);
}

async fn on_placed(_: Placed, _: &mut Context) -> Result {
    Ok(())
}

async fn on_placed_too(_: PlacedToo, _: &mut Context) -> Result {
    Ok(())
}

async fn on_due(_: Due, _: &mut Context) -> Result {
    Ok(())
}

fn built(fill: impl FnOnce(&mut Handlers) -> &mut Handlers) -> std::result::Result<usize, String> {
    let mut handlers = Handlers::new("shop");
    fill(&mut handlers);
    handlers.build().map(|routes| routes.len()).map_err(|e| e.to_string())
}

#[test]
fn handlers_are_checked_against_each_other() {
    let ok = built(|h| h.saga::<Order>().function(None, on_placed));
    assert_eq!(ok, Ok(5));

    let text = built(|h| h.function(None, on_placed).function(None, on_placed)).unwrap_err();
    assert!(text.contains("two handlers of shop.placed are named `shop.placed`"), "{text}");
    assert!(text.contains(".on_named("), "{text}");
    assert_eq!(built(|h| h.function(None, on_placed).function(Some("second"), on_placed)), Ok(2));

    let text = built(|h| h.function(None, on_placed).function(Some("b"), on_placed_too)).unwrap_err();
    assert!(text.contains("two types have the wire name shop.placed: Placed and PlacedToo"), "{text}");

    let text = built(|h| h.saga::<Order>().function(None, on_due)).unwrap_err();
    assert!(text.contains("order.due is a timeout of order and an ordinary message of order.due"), "{text}");

    let text = built(|h| h.saga::<Order>().saga::<Any<9>>()).unwrap_err();
    assert!(text.contains("two sagas are named `order`: Order and Any<9>"), "{text}");
    let text = built(|h| h.saga::<Order>().saga::<Order>()).unwrap_err();
    assert!(text.contains("saga `order` is added twice"), "{text}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = built(|h| h.saga::<Any<0>>().function(Some("no good"), on_placed).service((), |s| s)).unwrap_err();
    for part in ["endpoint shop: ", "has no message that starts it", "\"no good\"", "service () consumes nothing"] {
        assert!(text.contains(part), "{text}");
    }
}
