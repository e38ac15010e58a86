// The message type is given by the closure instead of the turbofish; the text still has to help.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct OrderSaga {
    order: u64,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "order";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by(|m: &OrderPlaced| m.order);
    }
}

fn main() {}
