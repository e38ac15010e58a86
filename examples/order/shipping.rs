//! The shipping service.

use crate::{event_log, messages::*, rows, scenario::Scenario};
use sagabus::prelude::*;

pub(crate) struct Shipping {
    pub(crate) seed: u64,
}

impl Consume<ShipOrder> for Shipping {
    async fn consume(&self, m: ShipOrder, ctx: &mut Context) -> Result {
        event_log::start(ctx, m.order);
        if Scenario::of(self.seed, m.order) == Scenario::OutOfStock {
            event_log::say(ctx, m.order, "out of stock");
            ctx.publish(OutOfStock { order: m.order });
        } else {
            rows::enter(ctx, m.order, "shipped", m.amount).await?;
            ctx.publish(OrderShipped { order: m.order });
        }
        Ok(())
    }
}
