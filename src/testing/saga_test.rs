//! Sagas under test: given, when, then, with virtual time.

mod asserts;
mod harness;
mod rows;
mod step;
#[cfg(test)]
mod tests;

pub use asserts::Assertion;

use harness::Harness;
use sagabus_core::{Envelope, Message, SendOptions};
use sagabus_sagas::Saga;
use std::{future::Future, marker::PhantomData, panic::Location, sync::Arc, time::Duration};

/// Runs one saga without broker and database, and looks at what it did.
///
/// Messages and state go through their encoding at every step, and correlation, policies, timeouts and aliases work as
/// in an endpoint. Time stands still but for [`advance`](SagaTest::advance).
///
/// `when…`, `advance` and `redeliver` are steps; what comes after a step asks about that step. A step that ended with an
/// error or in the dead letters must be asked about with [`failed`](SagaTest::failed) or [`dead`](SagaTest::dead):
/// otherwise the next step, or the end of the test, panics.
///
/// ```
/// # use sagabus_core::Message;
/// # use sagabus_sagas::{Handle, Result, Routes, Saga, SagaContext};
/// # use sagabus::testing::SagaTest;
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # macro_rules! message { ($type:ident, $name:literal) => {
/// #     #[derive(Serialize, Deserialize)] struct $type { order: u64 }
/// #     impl Message for $type { const NAME: &'static str = $name; }
/// # } }
/// # message!(OrderPlaced, "shop.order-placed");
/// # message!(PaymentDue, "order.payment-due");
/// # message!(OrderCancelled, "shop.order-cancelled");
/// # #[derive(Default, Serialize, Deserialize)]
/// # struct OrderSaga;
/// # impl Saga for OrderSaga {
/// #     const NAME: &'static str = "order";
/// #     type Key = u64;
/// #     fn routes(r: &mut Routes<Self>) { r.started_by::<OrderPlaced>(|m| m.order).timeout::<PaymentDue>(); }
/// # }
/// # impl Handle<OrderPlaced> for OrderSaga {
/// #     async fn handle(&mut self, m: OrderPlaced, ctx: &mut SagaContext) -> Result {
/// #         ctx.timeout(Duration::from_secs(15 * 60), PaymentDue { order: m.order });
/// #         Ok(())
/// #     }
/// # }
/// # impl Handle<PaymentDue> for OrderSaga {
/// #     async fn handle(&mut self, m: PaymentDue, ctx: &mut SagaContext) -> Result {
/// #         ctx.publish(OrderCancelled { order: m.order });
/// #         ctx.complete();
/// #         Ok(())
/// #     }
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// SagaTest::<OrderSaga>::new()
///     .when(OrderPlaced { order: 7 }).await
///     .nothing_sent()
///     .advance(Duration::from_secs(15 * 60)).await
///     .published::<OrderCancelled>(|m| m.order == 7)
///     .completed();
/// # });
/// ```
pub struct SagaTest<S: Saga> {
    harness: Harness,
    saga: PhantomData<fn() -> S>,
}

impl<S: Saga> std::fmt::Debug for SagaTest<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SagaTest").field("saga", &S::NAME).finish_non_exhaustive()
    }
}

impl<S: Saga> Default for SagaTest<S> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Saga> SagaTest<S> {
    /// An endpoint with this saga and nothing else. Panics if its routes are wrong, as building an endpoint would fail.
    #[track_caller]
    pub fn new() -> Self {
        match Harness::new::<S>() {
            Ok(harness) => Self { harness, saga: PhantomData },
            Err(error) => panic!("{error}"),
        }
    }

    /// A message arrives: a command or an event.
    #[track_caller]
    pub fn when<M: Message>(self, message: M) -> impl Future<Output = Self> + Send {
        self.when_with(message, SendOptions::new())
    }

    /// The same with headers, or a message id, of the test's choice.
    #[track_caller]
    pub fn when_with<M: Message>(self, message: M, options: SendOptions) -> impl Future<Output = Self> + Send {
        let message = self.harness.incoming(&message, options);
        self.deliver(message, 0)
    }

    /// The answer arrives to the last command that the saga sent. It finds the saga that asked, without its key.
    #[track_caller]
    pub fn when_reply<M: Message>(self, message: M) -> impl Future<Output = Self> + Send {
        let message = self.harness.answer(&message);
        self.deliver(message, 0)
    }

    /// The last message arrives once more. If it was handled, it is recognised and has no effect; if it failed, this is
    /// the retry.
    #[track_caller]
    pub fn redeliver(self) -> impl Future<Output = Self> + Send {
        let (message, attempts) = self.harness.again();
        self.deliver(Ok(message), attempts)
    }

    /// Time passes. Timeouts that become due arrive in their order, each at its moment; messages that wait for a saga
    /// give up at theirs.
    #[track_caller]
    pub fn advance(mut self, time: Duration) -> impl Future<Output = Self> + Send {
        self.harness.begin_step(format!("after {time:?}"), Location::caller());
        async move {
            self.harness.advance(time).await;
            self
        }
    }

    /// Everything that can be wrong with the step itself panics here, in the test's own line.
    #[track_caller]
    fn deliver(mut self, message: Result<Arc<Envelope>, String>, attempts: u32) -> impl Future<Output = Self> + Send {
        let found = message.and_then(|message| Ok((self.harness.route_of(&message)?, message)));
        let (route, message) = match found {
            Ok(found) => found,
            Err(problem) => panic!("{problem}"), // no closure: it would not know the caller
        };
        self.harness.begin_step(format!("when {}", message.headers.message_type), Location::caller());
        async move {
            self.harness.deliver(route, message, attempts).await;
            self
        }
    }
}

impl<S: Saga> Drop for SagaTest<S> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.harness.step.must_be_asked();
        }
    }
}
