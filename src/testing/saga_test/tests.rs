use super::SagaTest;
use sagabus_core::{HandlerError, Message, NotFound, OnExisting, SendOptions, TimerId};
use sagabus_macros::Message;
use sagabus_sagas::{Handle, Result, Routes, Saga, SagaContext};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, panic::AssertUnwindSafe, sync::Once, time::Duration};

macro_rules! messages {
    ($($type:ident = $name:literal { $($field:ident: $ty:ty),* })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Message, Serialize, Deserialize)]
        #[message(name = $name, crate = "sagabus_core")]
        struct $type { $($field: $ty),* }
    )*};
}

messages! {
    OrderPlaced = "shop.order-placed" { order: u64, total: i64 }
    PaymentCaptured = "shop.payment-captured" { order: u64 }
    Shipped = "shop.shipped" { tracking: String }
    PaymentDue = "order.payment-due" { reminders: u32 }
    CapturePayment = "pay.capture" { order: u64, amount: i64 }
    OrderConfirmed = "shop.order-confirmed" { order: u64 }
    OrderCancelled = "shop.order-cancelled" { order: u64 }
    Refund = "shop.refund" { order: u64 }
}

const MINUTES_15: Duration = Duration::from_secs(15 * 60);

#[derive(Default, Serialize, Deserialize)]
struct OrderSaga {
    order: u64,
    paid: bool,
    due: Option<TimerId>,
    /// Not stored: the round trip shows.
    #[serde(skip)]
    forgotten: u32,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "order";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<OrderPlaced>(|m| m.order)
            .on_existing(OnExisting::Discard)
            .continued_by::<PaymentCaptured>(|m| m.order)
            .continued_by_alias::<Shipped>("tracking", |m| m.tracking.clone())
            .on_not_found(NotFound::DeadLetter)
            .timeout::<PaymentDue>();
    }
}

impl Handle<OrderPlaced> for OrderSaga {
    async fn handle(&mut self, m: OrderPlaced, ctx: &mut SagaContext) -> Result {
        if m.total < 0 {
            return Err(HandlerError::permanent("a negative total"));
        }
        self.order = m.order;
        self.forgotten = 7;
        ctx.send(CapturePayment { order: m.order, amount: m.total });
        self.due = Some(ctx.timeout(MINUTES_15, PaymentDue { reminders: 0 }));
        Ok(())
    }
}

impl Handle<PaymentCaptured> for OrderSaga {
    async fn handle(&mut self, _: PaymentCaptured, ctx: &mut SagaContext) -> Result {
        if ctx.attempts() == 0 && self.order == 13 {
            ctx.publish(OrderConfirmed { order: self.order });
            return Err(HandlerError::new("the database is away"));
        }
        self.paid = true;
        if let Some(due) = self.due.take() {
            ctx.cancel_timeout(due);
        }
        ctx.alias("tracking", format!("T{}", self.order));
        Ok(())
    }
}

impl Handle<Shipped> for OrderSaga {
    async fn handle(&mut self, _: Shipped, ctx: &mut SagaContext) -> Result {
        ctx.publish(OrderConfirmed { order: self.order });
        ctx.reply_to_originator(OrderConfirmed { order: self.order });
        ctx.complete();
        Ok(())
    }
}

impl Handle<PaymentDue> for OrderSaga {
    async fn handle(&mut self, m: PaymentDue, ctx: &mut SagaContext) -> Result {
        if m.reminders < 2 {
            ctx.timeout(MINUTES_15, PaymentDue { reminders: m.reminders + 1 });
        } else {
            ctx.publish(OrderCancelled { order: self.order });
            ctx.complete();
        }
        Ok(())
    }
}

fn order() -> SagaTest<OrderSaga> {
    SagaTest::new()
}

fn placed(order: u64) -> OrderPlaced {
    OrderPlaced { order, total: 990 }
}

fn captured(order: u64) -> PaymentCaptured {
    PaymentCaptured { order }
}

#[tokio::test]
async fn from_placement_to_confirmation() {
    order()
        .when(placed(7))
        .await
        .sent::<CapturePayment>(|m| m.amount == 990)
        .nothing_else()
        .timeout_in::<PaymentDue>(MINUTES_15)
        .not_completed()
        .state(|s| s.order == 7 && !s.paid && s.forgotten == 0)
        .when_reply(captured(0))
        .await
        .nothing_sent()
        .no_timeout()
        .state(|s| assert!(s.paid))
        .when(Shipped { tracking: "T7".into() })
        .await
        .published::<OrderConfirmed>(|m| m.order == 7)
        .replied::<OrderConfirmed>(|m| m.order == 7)
        .completed();
}

#[tokio::test]
async fn timeouts_come_in_order_and_at_their_moment() {
    order()
        .when(placed(7))
        .await
        .when(placed(8))
        .await
        .advance(MINUTES_15 - Duration::from_millis(1))
        .await
        .nothing_sent()
        .timeout_in::<PaymentDue>(Duration::from_millis(1))
        .advance(MINUTES_15 * 3)
        .await
        .published::<OrderCancelled>(|m| m.order == 7)
        .published::<OrderCancelled>(|m| m.order == 8)
        .nothing_else()
        .completed()
        .saga(7)
        .completed()
        .no_timeout();
}

#[tokio::test]
async fn a_message_before_its_saga_waits_for_it() {
    order().when(captured(7)).await.parked().when(placed(7)).await.state(|s| s.paid).no_timeout();
    order().when(captured(7)).await.parked().advance(Duration::from_secs(300)).await.dead("not created in time");
}

#[tokio::test]
async fn policies_show() {
    order().when(Shipped { tracking: "T1".into() }).await.dead("no saga test/order");
    order().when(placed(7)).await.when(placed(7)).await.dropped("saga-exists").nothing_sent().not_completed();
}

#[tokio::test]
async fn an_instance_that_ended_leaves_nothing_behind() {
    order()
        .when(placed(7))
        .await
        .when(captured(7))
        .await
        .when(Shipped { tracking: "T7".into() })
        .await
        .completed()
        .when_reply(captured(7))
        .await
        .dead("has ended")
        .when(placed(7))
        .await
        .not_completed()
        .state(|s| !s.paid)
        .when(Shipped { tracking: "T7".into() })
        .await
        .dead("no saga");
}

#[tokio::test]
async fn a_failure_keeps_nothing_and_a_redelivery_is_the_retry() {
    order()
        .when(placed(13))
        .await
        .when(captured(13))
        .await
        .failed(|e| e.to_string().contains("away") && !e.is_permanent())
        .nothing_sent()
        .state(|s| !s.paid)
        .redeliver()
        .await
        .state(|s| s.paid)
        .redeliver()
        .await
        .duplicate()
        .nothing_sent();
    order().when(OrderPlaced { order: 1, total: -1 }).await.failed(|e| assert!(e.is_permanent()));
}

#[tokio::test]
async fn a_message_id_of_ones_own_is_recognised() {
    let id = || SendOptions::new().id(sagabus_core::MessageId::from_foreign("order 7"));
    order().when_with(placed(7), id()).await.when_with(placed(7), id()).await.duplicate();
}

thread_local! {
    /// Where this thread panicked; the outer option says whether panics are meant to be.
    static PANIC_AT: RefCell<Option<Option<(String, u32)>>> = const { RefCell::new(None) };
}

/// Runs a test that must panic: where it panicked, and with which text.
fn panics<F: Future>(test: impl FnOnce() -> F) -> (String, u32, String) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let at = info.location().map(|l| (l.file().to_string(), l.line()));
            let expected =
                PANIC_AT.with_borrow_mut(|expected| expected.as_mut().map(|expected| *expected = at).is_some());
            if !expected {
                before(info);
            }
        }));
    });
    PANIC_AT.set(Some(None));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let panic = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(test());
    }))
    .expect_err("it did not panic");
    let (file, line) = PANIC_AT.take().flatten().unwrap();
    (
        file,
        line,
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|t| t.to_string()))
            .unwrap(),
    )
}

#[test]
fn a_failed_assertion_points_at_the_users_line_and_shows_the_step() {
    let here = line!();
    let (file, line, text) = panics(|| async {
        let test = order().when(placed(7)).await;
        test.sent::<CapturePayment>(|m| m.amount == 991).completed();
    });
    assert!(file.ends_with("tests.rs") && line == here + 3, "{file}:{line}");
    assert_eq!(
        text,
        "saga `order`: no such pay.capture was sent\n\
         `when shop.order-placed` was handled\n  \
         sent pay.capture {\"order\":7,\"amount\":990}\n  \
         timeout order.payment-due in 900s"
    );
}

#[test]
fn what_cannot_arrive_is_said_in_the_users_line() {
    let here = line!();
    let (_, line, text) = panics(|| async {
        order().when(Refund::default()).await;
    });
    assert_eq!(line, here + 2);
    assert_eq!(text, "`order` has no route for `shop.refund`: add one to `OrderSaga::routes`");
    let text = panics(|| async { order().when(PaymentDue::default()).await }).2;
    assert!(text.contains("`order.payment-due` is a timeout of `order`: it comes by itself"), "{text}");
    let text = panics(|| async { order().when_reply(captured(7)).await }).2;
    assert!(text.contains("has sent no command yet"), "{text}");
    let text = panics(|| async { order().redeliver().await }).2;
    assert!(text.contains("no message yet"), "{text}");
}

#[test]
fn a_failure_that_was_not_asked_about_fails_the_test() {
    let bad = || OrderPlaced { order: 1, total: -1 };
    let here = line!();
    let (_, line, text) = panics(|| async {
        let test = order().when(bad()).await;
        test.advance(Duration::ZERO).await
    });
    assert_eq!(line, here + 3);
    assert!(text.contains(&format!("tests.rs:{}", here + 2)), "{text}");
    assert!(text.contains("failed: a negative total") && text.contains(".failed(|error| …)"), "{text}");
    let text = panics(|| async { drop(order().when(bad()).await) }).2;
    assert!(text.contains("failed: a negative total"), "{text}");
}

#[test]
fn each_question_can_be_answered_with_no() {
    type Ask = fn(SagaTest<OrderSaga>) -> SagaTest<OrderSaga>;
    let no: [(Ask, &str); 13] = [
        (|t| t.published::<OrderCancelled>(|_| true), "no such shop.order-cancelled was published"),
        (|t| t.replied::<OrderConfirmed>(|_| true), "no such shop.order-confirmed was replied"),
        (|t| t.sent::<CapturePayment>(|_| true).sent::<CapturePayment>(|_| true), "(asked for already)"),
        (|t| t.nothing_sent(), "something was sent"),
        (|t| t.nothing_else(), "more was sent than was asked for"),
        (|t| t.completed(), "has not completed"),
        (|t| t.state(|s| s.paid), "the state is {\"order\":7,\"paid\":false"),
        (|t| t.failed(|_| true), "no handler failed"),
        (|t| t.parked(), "no message was parked"),
        (|t| t.dead("x"), "no message was dead-lettered with \"x\""),
        (|t| t.dropped("x"), "no message was dropped as \"x\""),
        (|t| t.duplicate(), "no message was recognised"),
        (|t| t.no_timeout(), "there are timeouts"),
    ];
    for (ask, expected) in no {
        let text = panics(|| async { ask(order().when(placed(7)).await) }).2;
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let text = panics(|| async { order().when(captured(7)).await.not_completed() }).2;
    assert!(text.contains("there is no saga") && text.contains("was parked for 300s"), "{text}");
}

/// No message starts it.
#[derive(Default, Serialize, Deserialize)]
struct Sleeping;

impl Saga for Sleeping {
    const NAME: &'static str = "sleeping";
    type Key = u64;
    fn routes(_: &mut Routes<Self>) {}
}

#[test]
fn bad_routes_fail_at_once() {
    let text = panics(|| async { SagaTest::<Sleeping>::new() }).2;
    assert!(text.contains("saga `sleeping` (Sleeping) has no message that starts it"), "{text}");
}

#[test]
fn steps_are_send() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&order());
    is_send(&order().when(placed(7)));
    is_send(&order().advance(MINUTES_15));
    assert_eq!(OrderPlaced::NAME, "shop.order-placed");
}
