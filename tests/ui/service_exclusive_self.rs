// A service's handler takes `&mut self`: a service is shared.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.payment-captured")]
struct PaymentCaptured {
    order: u64,
}

struct Shipping;

impl Consume<PaymentCaptured> for Shipping {
    async fn consume(&mut self, _: PaymentCaptured, _: &mut Context) -> Result {
        Ok(())
    }
}

fn main() {}
