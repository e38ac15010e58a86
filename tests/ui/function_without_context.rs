// A function that takes no context.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

async fn on_placed(_: OrderPlaced) -> Result {
    Ok(())
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").on(on_placed)
}

fn main() {}
