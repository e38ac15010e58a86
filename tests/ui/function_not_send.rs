// A function that holds something over an await that cannot change threads.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

async fn io() {}

async fn on_placed(message: OrderPlaced, _: &mut Context) -> Result {
    let note = std::rc::Rc::new(message.order);
    io().await;
    println!("{note}");
    Ok(())
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").on(on_placed)
}

fn main() {}
