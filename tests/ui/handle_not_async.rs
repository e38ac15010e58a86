// A handler that is no async function.
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
        r.started_by::<OrderPlaced>(|m| m.order);
    }
}

impl Handle<OrderPlaced> for OrderSaga {
    fn handle(&mut self, _: OrderPlaced, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

fn main() {}
