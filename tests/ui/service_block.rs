// The closure of a service forgets to return the routes.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

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
    Endpoint::builder("shop").service(Shipping, |s| {
        s.on::<PaymentCaptured>();
    })
}

fn main() {}
