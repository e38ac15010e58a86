//! The shop: sees an order from placement to its end.

use crate::{event_log, messages::*, rows};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct OrderSaga {
    order: u64,
    amount: i64,
    step: Step,
}

/// What the saga waits for: exactly one answer at any time. It ends only when nobody owes it one any more, so no answer
/// ever finds it gone, and a reservation that comes too late is still undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Step {
    /// The payment's answer, or the timeout.
    #[default]
    Paying,
    /// The payment's answer, after the timeout.
    Late,
    Shipping,
    Capturing,
    Releasing,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "order";
    type Key = u64;

    fn routes(r: &mut Routes<Self>) {
        // an answer without its saga would be a bug here: it goes to the dead letters at once, where it is seen
        let none = NotFound::DeadLetter;
        r.started_by::<OrderPlaced>(|m| m.order).on_existing(OnExisting::DeadLetter);
        r.continued_by::<PaymentReserved>(|m| m.order).on_not_found(none);
        r.continued_by::<PaymentDeclined>(|m| m.order).on_not_found(none);
        r.continued_by::<OrderShipped>(|m| m.order).on_not_found(none);
        r.continued_by::<OutOfStock>(|m| m.order).on_not_found(none);
        r.continued_by::<PaymentCaptured>(|m| m.order).on_not_found(none);
        r.continued_by::<PaymentReleased>(|m| m.order).on_not_found(none);
        r.timeout::<PaymentDue>();
    }
}

impl Handle<OrderPlaced> for OrderSaga {
    async fn handle(&mut self, m: OrderPlaced, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        self.order = m.order;
        self.amount = m.amount;
        ctx.send(ReservePayment { order: m.order, amount: m.amount });
        ctx.timeout(Duration::from_millis(m.pay_within_ms), PaymentDue { order: m.order });
        self.go(Step::Paying, "paying", "placed: reserving the payment", ctx).await
    }
}

impl Handle<PaymentReserved> for OrderSaga {
    async fn handle(&mut self, m: PaymentReserved, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Paying => {
                ctx.cancel_timeouts::<PaymentDue>();
                ctx.send(ShipOrder { order: self.order, amount: self.amount });
                self.go(Step::Shipping, "shipping", "paid in time: shipping", ctx).await
            }
            Step::Late => self.release("paid too late: releasing the payment", ctx).await,
            step => unexpected(step, ctx),
        }
    }
}

impl Handle<PaymentDeclined> for OrderSaga {
    async fn handle(&mut self, m: PaymentDeclined, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Paying | Step::Late => self.cancelled("CANCELLED: the payment is declined", ctx).await,
            step => unexpected(step, ctx),
        }
    }
}

impl Handle<PaymentDue> for OrderSaga {
    async fn handle(&mut self, m: PaymentDue, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        if self.step == Step::Paying {
            return self.go(Step::Late, "late", "the payment is late: cancelling when it answers", ctx).await;
        }
        // the answer was handled a moment ago: it has cancelled this timeout, whose commit will find that out
        Ok(())
    }
}

impl Handle<OrderShipped> for OrderSaga {
    async fn handle(&mut self, m: OrderShipped, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Shipping => {
                ctx.send(CapturePayment { order: self.order, amount: self.amount });
                self.go(Step::Capturing, "capturing", "shipped: capturing the payment", ctx).await
            }
            step => unexpected(step, ctx),
        }
    }
}

impl Handle<OutOfStock> for OrderSaga {
    async fn handle(&mut self, m: OutOfStock, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Shipping => self.release("out of stock: releasing the payment", ctx).await,
            step => unexpected(step, ctx),
        }
    }
}

impl Handle<PaymentCaptured> for OrderSaga {
    async fn handle(&mut self, m: PaymentCaptured, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Capturing => {
                ctx.publish(OrderConfirmed { order: self.order });
                self.end("confirmed", "CONFIRMED", ctx).await
            }
            step => unexpected(step, ctx),
        }
    }
}

impl Handle<PaymentReleased> for OrderSaga {
    async fn handle(&mut self, m: PaymentReleased, ctx: &mut SagaContext) -> Result {
        event_log::start(ctx, m.order);
        match self.step {
            Step::Releasing => self.cancelled("CANCELLED: the payment is released", ctx).await,
            step => unexpected(step, ctx),
        }
    }
}

impl OrderSaga {
    /// The next step, with the order's row in the same transaction as the saga's state and what it sends.
    async fn go(&mut self, step: Step, status: &str, text: &str, ctx: &mut SagaContext) -> Result {
        self.step = step;
        rows::set_status(ctx, self.order, status).await?;
        event_log::say(ctx, self.order, text);
        Ok(())
    }

    async fn release(&mut self, text: &str, ctx: &mut SagaContext) -> Result {
        ctx.send(ReleasePayment { order: self.order, amount: self.amount });
        self.go(Step::Releasing, "releasing", text, ctx).await
    }

    async fn cancelled(&mut self, text: &str, ctx: &mut SagaContext) -> Result {
        ctx.publish(OrderCancelled { order: self.order });
        self.end("cancelled", text, ctx).await
    }

    async fn end(&mut self, status: &str, text: &str, ctx: &mut SagaContext) -> Result {
        ctx.complete();
        self.go(self.step, status, text, ctx).await
    }
}

/// An answer to something that was not asked: never with exactly-once effects, and a dead letter without them.
fn unexpected(step: Step, ctx: &SagaContext) -> Result {
    let text = format!("a {} came to order {} while it was {step:?}", ctx.headers().message_type, ctx.saga_key());
    Err(HandlerError::permanent(text))
}
