//! Mail to the customer (`--mail`): a second subscriber to the shop's events, with a dead letter now and then.

use crate::{event_log, messages::OrderConfirmed};
use sagabus::prelude::*;

/// Its name among the handlers of the shop.
pub(crate) const HANDLER: &str = "mail";

pub(crate) async fn confirm_by_mail(m: OrderConfirmed, ctx: &mut Context) -> Result {
    event_log::start(ctx, m.order);
    if m.order.is_multiple_of(5) {
        event_log::say(ctx, m.order, "the mail to the customer bounced: a dead letter");
        return Err(HandlerError::permanent(format!("the mailbox of the customer of order {} is full", m.order)));
    }
    event_log::say(ctx, m.order, "mail to the customer");
    Ok(())
}
