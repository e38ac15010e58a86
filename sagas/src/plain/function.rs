use super::route::{Plain, PlainRoute};
use crate::Result;
use sagabus_core::{Context, Message, Route};
use std::{future::Future, marker::PhantomData, sync::Arc};

/// An `async fn(M, &mut Context) -> Result`, or an async closure of that form that captures nothing.
///
/// Implemented for functions; nobody implements it by hand. What needs state of its own is a [service](crate::Consume).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler function",
    label = "not an `async fn(Message, &mut Context) -> Result`",
    note = "a handler function is `async fn name(message: M, ctx: &mut Context) -> Result`, where `M` is a message; it captures nothing",
    note = "a handler with state is a struct with `impl Consume<M>`, registered with `.service(value, |s| s.on::<M>())`"
)]
pub trait HandlerFn<'a, M>: Send + Sync + 'static {
    /// What it returns.
    type Future: Future<Output = Result> + Send + 'a;

    /// Calls it.
    fn call(&self, message: M, context: &'a mut Context) -> Self::Future;
}

// Without `#[diagnostic::do_not_recommend]`, on purpose: it would hide what is wrong (not async, not Send, another error
// type, a capture) behind "is not a handler function". tests/ui/function_*.stderr show the difference.
impl<'a, M, F, R> HandlerFn<'a, M> for F
where
    M: 'a,
    F: Fn(M, &'a mut Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result> + Send + 'a,
{
    type Future = R;

    fn call(&self, message: M, context: &'a mut Context) -> R {
        self(message, context)
    }
}

struct Function<F>(F);

impl<M, F> Plain<M> for Function<F>
where
    M: Message,
    F: for<'a> HandlerFn<'a, M>,
{
    fn call(&self, message: M, context: &mut Context) -> impl Future<Output = Result> + Send {
        self.0.call(message, context)
    }
}

/// The route of a function. Without a name it is called like its message.
///
/// ```
/// # use sagabus_core::{Context, Message};
/// # use sagabus_sagas::{Result, function_route};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct CapturePayment;
/// # impl Message for CapturePayment { const NAME: &'static str = "shop.capture-payment"; }
/// async fn capture_payment(message: CapturePayment, ctx: &mut Context) -> Result {
///     Ok(())
/// }
/// assert_eq!(&**function_route(None, capture_payment).handler(), "shop.capture-payment");
/// assert_eq!(&**function_route(Some("payments"), capture_payment).handler(), "payments");
/// ```
pub fn function_route<M, F>(name: Option<&str>, function: F) -> Arc<dyn Route>
where
    M: Message,
    F: for<'a> HandlerFn<'a, M>,
{
    Arc::new(PlainRoute {
        name: name.unwrap_or(M::NAME).into(),
        handler: Function(function),
        message: PhantomData::<fn(M)>,
    })
}
