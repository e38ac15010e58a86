// A closure that captures: that is what services are for.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

fn endpoint() -> sagabus::EndpointBuilder {
    let prefix = String::from("order");
    Endpoint::builder("shop").on(async move |message: OrderPlaced, _: &mut Context| {
        println!("{prefix} {}", message.order);
        Ok(())
    })
}

fn main() {}
