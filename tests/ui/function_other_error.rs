// A function with an error type of its own.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

async fn on_placed(_: OrderPlaced, _: &mut Context) -> std::result::Result<(), std::io::Error> {
    Ok(())
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").on(on_placed)
}

fn main() {}
