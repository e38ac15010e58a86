//! The payment service: a bank that sometimes says no, and sometimes takes its time.

use crate::{event_log, messages::*, rows, scenario::Scenario};
use sagabus::prelude::*;
use std::time::Duration;

/// It keeps no note of what it has done already, and checks nothing: each command is handled once.
pub(crate) struct Payment {
    pub(crate) seed: u64,
    /// After how long a late answer comes.
    pub(crate) late: Duration,
}

impl Consume<ReservePayment> for Payment {
    async fn consume(&self, m: ReservePayment, ctx: &mut Context) -> Result {
        event_log::start(ctx, m.order);
        match Scenario::of(self.seed, m.order) {
            Scenario::Declined => {
                event_log::say(ctx, m.order, "declined");
                ctx.reply(PaymentDeclined { order: m.order });
            }
            // the failure is stored with the time of the next attempt, and survives a restart
            Scenario::Late if ctx.attempts() == 0 => {
                event_log::say(ctx, m.order, format_args!("the bank does not answer: again in {:?}", self.late));
                return Err(HandlerError::retry_in(self.late, "the bank does not answer"));
            }
            Scenario::Good | Scenario::Late | Scenario::OutOfStock => {
                rows::enter(ctx, m.order, "reserved", m.amount).await?;
                ctx.reply(PaymentReserved { order: m.order });
            }
        }
        Ok(())
    }
}

impl Consume<CapturePayment> for Payment {
    async fn consume(&self, m: CapturePayment, ctx: &mut Context) -> Result {
        event_log::start(ctx, m.order);
        rows::enter(ctx, m.order, "captured", m.amount).await?;
        ctx.reply(PaymentCaptured { order: m.order });
        Ok(())
    }
}

impl Consume<ReleasePayment> for Payment {
    async fn consume(&self, m: ReleasePayment, ctx: &mut Context) -> Result {
        event_log::start(ctx, m.order);
        rows::enter(ctx, m.order, "released", m.amount).await?;
        ctx.reply(PaymentReleased { order: m.order });
        Ok(())
    }
}
