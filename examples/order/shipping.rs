//! The shipping service.

use crate::{diary, fate::Fate, messages::*, rows};
use sagabus::prelude::*;

pub(crate) struct Shipping {
    pub(crate) seed: u64,
}

impl Consume<ShipOrder> for Shipping {
    async fn consume(&self, m: ShipOrder, ctx: &mut Context) -> Result {
        diary::start(ctx, m.order);
        if Fate::of(self.seed, m.order) == Fate::OutOfStock {
            diary::say(ctx, m.order, "out of stock");
            ctx.publish(OutOfStock { order: m.order });
        } else {
            rows::enter(ctx, m.order, "shipped", m.amount).await?;
            ctx.publish(OrderShipped { order: m.order });
        }
        Ok(())
    }
}
