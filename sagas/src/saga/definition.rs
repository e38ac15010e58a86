use crate::{Result, Routes, SagaContext};
use sagabus_core::{HandlerError, Message};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt::Display, future::Future, time::Duration};

/// A process that outlives its messages: its state is stored between them.
///
/// The struct is the state. There is one instance per correlation value at a time, and it sees one message at a time,
/// across any number of processes. What a handler does (state, messages, timeouts) commits together, once.
///
/// ```
/// # use sagabus_core::Message;
/// # use sagabus_sagas::{Handle, Result, Routes, Saga, SagaContext};
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # macro_rules! message { ($type:ident, $name:literal) => {
/// #     #[derive(Serialize, Deserialize)] struct $type { order: u64 }
/// #     impl Message for $type { const NAME: &'static str = $name; }
/// # } }
/// # message!(OrderPlaced, "shop.order-placed");
/// # message!(PaymentCaptured, "shop.payment-captured");
/// # message!(PaymentDue, "order.payment-due");
/// # message!(OrderCancelled, "shop.order-cancelled");
/// #[derive(Default, Serialize, Deserialize)]
/// struct OrderSaga { paid: bool }
///
/// impl Saga for OrderSaga {
///     const NAME: &'static str = "order";
///     type Key = u64;
///     fn routes(r: &mut Routes<Self>) {
///         r.started_by::<OrderPlaced>(|m| m.order)
///             .continued_by::<PaymentCaptured>(|m| m.order)
///             .timeout::<PaymentDue>();
///     }
/// }
///
/// impl Handle<OrderPlaced> for OrderSaga {
///     async fn handle(&mut self, message: OrderPlaced, ctx: &mut SagaContext) -> Result {
///         ctx.timeout(Duration::from_secs(15 * 60), PaymentDue { order: message.order });
///         Ok(())
///     }
/// }
///
/// impl Handle<PaymentCaptured> for OrderSaga {
///     async fn handle(&mut self, _: PaymentCaptured, ctx: &mut SagaContext) -> Result {
///         self.paid = true;
///         ctx.complete();
///         Ok(())
///     }
/// }
///
/// impl Handle<PaymentDue> for OrderSaga {
///     async fn handle(&mut self, due: PaymentDue, ctx: &mut SagaContext) -> Result {
///         ctx.publish(OrderCancelled { order: due.order });
///         ctx.complete();
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    label = "has no `impl Saga`",
    note = "a saga is a struct with `#[derive(Default, Serialize, Deserialize)]` and `impl Saga for {Self}`, which names it and lists its routes"
)]
pub trait Saga: Default + Serialize + DeserializeOwned + Send + 'static {
    /// Its stable name within the endpoint: part of its rows. Letters, digits and `. _ - :`.
    const NAME: &'static str;

    /// The version of the state's schema. Raise it when stored states need [`upgrade`](Saga::upgrade).
    const SCHEMA: u32 = 1;

    /// How long a completed saga's row is kept, for people to look at. `None` deletes it at once.
    const KEEP_COMPLETED: Option<Duration> = None;

    /// The correlation value: what names one saga among its kind. Its `Display` text is stored; 1 to 255 bytes.
    type Key: Display;

    /// Which messages it handles, in which role, and how each finds its saga.
    fn routes(routes: &mut Routes<Self>);

    /// Turns a state that was stored under another [`SCHEMA`](Saga::SCHEMA) into one of today's.
    ///
    /// Without it, such a state is an error: a permanent one if the state is older; one that is retried if it is newer,
    /// because then a newer program is being rolled out beside this one.
    fn upgrade(from: u32, state: Value) -> Result<Value> {
        drop(state);
        Err(HandlerError::new(format!(
            "the stored state has schema {from}, this program knows {}: {}",
            Self::SCHEMA,
            if from < Self::SCHEMA { "write `Saga::upgrade` for it" } else { "a newer program stored it" }
        )))
    }
}

/// How a saga handles one type of message.
///
/// Write it with a plain `async fn`. After an error nothing of what the handler did is kept, not even its changes to
/// `self`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    label = "this route has no handler",
    note = "write `impl Handle<{M}> for {Self} {{ async fn handle(&mut self, message: {M}, ctx: &mut SagaContext) -> Result {{ .. }} }}`"
)]
pub trait Handle<M: Message>: Send {
    /// Changes the state, and says through the context what else is to happen.
    fn handle(&mut self, message: M, ctx: &mut SagaContext) -> impl Future<Output = Result> + Send;
}
