// A service is added for a message that it does not consume.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.payment-captured")]
struct PaymentCaptured {
    order: u64,
}

struct Shipping;

impl Consume<PaymentCaptured> for Shipping {
    async fn consume(&self, _: PaymentCaptured, _: &mut Context) -> Result {
        Ok(())
    }
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").service(Shipping, |s| s.on::<OrderPlaced>())
}

fn main() {}
