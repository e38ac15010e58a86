// The key is a type that has no text.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Serialize, Deserialize)]
struct OrderId(u64);

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: OrderId,
}

#[derive(Default, Serialize, Deserialize)]
struct OrderSaga {
    order: u64,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "order";
    type Key = OrderId;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<OrderPlaced>(|m| m.order);
    }
}

impl Handle<OrderPlaced> for OrderSaga {
    async fn handle(&mut self, _: OrderPlaced, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

fn main() {}
