//! What the endpoints tell each other. The wire names are explicit, so that a type can be renamed or moved.

use sagabus::Message;
use serde::{Deserialize, Serialize};

macro_rules! messages {
    ($($(#[$doc:meta])* $type:ident = $name:literal { $($field:ident: $field_type:ty),* })*) => {$(
        $(#[$doc])*
        #[derive(Message, Serialize, Deserialize)]
        #[message(name = $name)]
        pub(crate) struct $type { $(pub(crate) $field: $field_type),* }
    )*};
}

messages! {
    /// Event: a customer ordered. It starts the saga, which waits `pay_within_ms` for the payment.
    OrderPlaced = "shop.order-placed" { order: u64, amount: i64, pay_within_ms: u64 }
    /// The saga to itself: the payment is due.
    PaymentDue = "shop.payment-due" { order: u64 }
    /// Event: it went well.
    OrderConfirmed = "shop.order-confirmed" { order: u64 }
    /// Event: it did not, and everything is undone.
    OrderCancelled = "shop.order-cancelled" { order: u64 }

    /// Command to payment, which replies `PaymentReserved` or `PaymentDeclined`.
    ReservePayment = "payment.reserve" { order: u64, amount: i64 }
    /// Command to payment, which replies `PaymentCaptured`.
    CapturePayment = "payment.capture" { order: u64, amount: i64 }
    /// Command to payment, which replies `PaymentReleased`.
    ReleasePayment = "payment.release" { order: u64, amount: i64 }
    /// Reply.
    PaymentReserved = "payment.reserved" { order: u64 }
    /// Reply.
    PaymentDeclined = "payment.declined" { order: u64 }
    /// Reply.
    PaymentCaptured = "payment.captured" { order: u64 }
    /// Reply.
    PaymentReleased = "payment.released" { order: u64 }

    /// Command to shipping, which publishes `OrderShipped` or `OutOfStock`.
    ShipOrder = "shipping.ship" { order: u64, amount: i64 }
    /// Event.
    OrderShipped = "shipping.order-shipped" { order: u64 }
    /// Event.
    OutOfStock = "shipping.out-of-stock" { order: u64 }
}
