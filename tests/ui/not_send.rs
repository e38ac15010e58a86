// Something that cannot change threads is held over an await.
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

async fn io() {}

impl Handle<OrderPlaced> for OrderSaga {
    async fn handle(&mut self, message: OrderPlaced, _: &mut SagaContext) -> Result {
        let note = std::rc::Rc::new(message.order);
        io().await;
        self.order = *note;
        Ok(())
    }
}

fn main() {}
