// A function that is not async.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

fn on_placed(_: OrderPlaced, _: &mut Context) -> Result {
    Ok(())
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").on(on_placed)
}

fn main() {}
