// `on_existing` is for starting messages, `on_not_found` for continuing ones.
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

#[derive(Default, Serialize, Deserialize)]
struct OrderSaga {
    order: u64,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "order";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<OrderPlaced>(|m| m.order).on_not_found(NotFound::Discard);
        r.continued_by::<PaymentCaptured>(|m| m.order).on_existing(OnExisting::Discard);
    }
}

impl Handle<OrderPlaced> for OrderSaga {
    async fn handle(&mut self, _: OrderPlaced, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

impl Handle<PaymentCaptured> for OrderSaga {
    async fn handle(&mut self, _: PaymentCaptured, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

fn main() {}
