//! A saga for the tests, and means to run its routes.

use crate::{Handle, Result, Routes, Saga, SagaContext, saga_routes};
use bytes::Bytes;
use sagabus_core::{
    Codec, Context, Effects, EndpointInfo, Envelope, HandlerError, Headers, Incoming, InstanceId, Intent, Invocation,
    InvocationContext, Limits, Message, MessageId, NodeId, Route, Runtime, SagaAddress, SagaRow,
};
use sagabus_macros::Message;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

macro_rules! messages {
    ($($type:ident = $name:literal { $($field:ident: $ty:ty),* })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Message, Serialize, Deserialize)]
        #[message(name = $name, crate = "sagabus_core")]
        pub(super) struct $type { $(pub(super) $field: $ty),* }
    )*};
}

messages! {
    Placed = "shop.placed" { order: String, what: What }
    Paid = "shop.paid" { order: String, what: What }
    Tracked = "shop.tracked" { tracking: String }
    Due = "order.due" { note: String }
    Ship = "shop.ship" { order: String }
    Done = "shop.done" { order: String }
}

/// What the test wants the handler to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum What {
    #[default]
    Nothing,
    Send,
    SendAndFail,
    SendAndFailForGood,
    SendUnroutable,
    Timeout,
    TimeoutAndCancel,
    CancelThenSet,
    CancelAll,
    NotATimeout,
    Complete,
    TimeoutAndComplete,
    Alias(String, String),
    Answer,
    Reply,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) count: u32,
}

impl Saga for Order {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 2;
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order.clone())
            .continued_by::<Paid>(|m| m.order.clone())
            .continued_by_alias::<Tracked>("tracking", |m| m.tracking.clone())
            .timeout::<Due>();
    }
    fn upgrade(from: u32, mut state: serde_json::Value) -> Result<serde_json::Value> {
        if from != 1 {
            return Err(HandlerError::new("only 1 is known"));
        }
        state["count"] = state["old_count"].take();
        Ok(state)
    }
}

impl Order {
    async fn act(&mut self, order: &str, what: What, ctx: &mut SagaContext) -> Result {
        self.count += 1;
        let order = order.to_string();
        let minute = Duration::from_secs(60);
        match what {
            What::Nothing => {}
            What::Send => ctx.send(Ship { order }),
            What::SendAndFail => {
                ctx.send(Ship { order });
                return Err(HandlerError::new("no"));
            }
            What::SendAndFailForGood => {
                ctx.publish(Done { order });
                ctx.timeout(minute, Due::default());
                ctx.alias("tracking", "T1");
                return Err(HandlerError::permanent("never"));
            }
            What::SendUnroutable => ctx.send(Tracked::default()),
            What::Timeout => drop(ctx.timeout(minute, Due::default())),
            What::TimeoutAndCancel => {
                let id = ctx.timeout(minute, Due::default());
                ctx.cancel_timeout(id);
            }
            What::CancelThenSet => {
                ctx.timeout(minute, Due { note: "old".into() });
                ctx.cancel_timeouts::<Due>();
                ctx.timeout(minute, Due { note: "new".into() });
            }
            What::CancelAll => ctx.cancel_timeouts::<Due>(),
            What::NotATimeout => drop(ctx.timeout(minute, Ship { order })),
            What::Complete => ctx.complete(),
            What::TimeoutAndComplete => {
                ctx.timeout(minute, Due::default());
                ctx.alias("tracking", "T1");
                ctx.send(Ship { order });
                ctx.complete();
            }
            What::Alias(name, value) => ctx.alias(&name, value),
            What::Answer => ctx.reply_to_originator(Done { order }),
            What::Reply => ctx.reply(Done { order }),
        }
        Ok(())
    }
}

impl Handle<Placed> for Order {
    async fn handle(&mut self, m: Placed, ctx: &mut SagaContext) -> Result {
        assert_eq!(ctx.saga_key(), m.order);
        self.act(&m.order, m.what, ctx).await
    }
}

impl Handle<Paid> for Order {
    async fn handle(&mut self, m: Paid, ctx: &mut SagaContext) -> Result {
        assert!(!ctx.is_new());
        self.act(&m.order, m.what, ctx).await
    }
}

impl Handle<Tracked> for Order {
    async fn handle(&mut self, _: Tracked, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

impl Handle<Due> for Order {
    async fn handle(&mut self, _: Due, ctx: &mut SagaContext) -> Result {
        self.count += 100;
        ctx.reply_to_originator(Done::default());
        Ok(())
    }
}

pub(super) fn info() -> Arc<EndpointInfo> {
    let runtime = Runtime::system();
    Arc::new(EndpointInfo {
        name: "shop".into(),
        node: NodeId(runtime.uuid()),
        codec: Codec::json(),
        limits: Limits::default(),
        runtime,
        owners: [(Ship::NAME.to_string(), "shipping".to_string())].into(),
        reply_to: Some("shop".into()),
        store: None,
    })
}

pub(super) fn envelope<M: Message>(message: &M, intent: Intent) -> Envelope {
    let runtime = Runtime::system();
    let headers = Headers::new(MessageId(runtime.uuid()), M::NAME, intent, runtime.now());
    Envelope::new(headers, serde_json::to_vec(message).unwrap())
}

pub(super) fn route<S: Saga, M: Message>() -> Arc<dyn Route> {
    let routes = saga_routes::<S>("shop").unwrap();
    routes.into_iter().find(|r| r.message_type() == M::NAME).unwrap()
}

pub(super) fn row(instance: u128, state: &str) -> SagaRow {
    SagaRow {
        kind: "shop/order".into(),
        key: "o1".into(),
        instance: InstanceId(Uuid::from_u128(instance)),
        version: 4,
        state: Bytes::from(state.to_string()),
        schema: 2,
        origin: None,
        completed: false,
    }
}

pub(super) fn address(kind: &str, instance: u128) -> SagaAddress {
    SagaAddress { kind: kind.into(), ..row(instance, "").address() }
}

/// Runs a route as the endpoint would, and returns its effects beside the result.
pub(super) async fn run(route: Arc<dyn Route>, message: Envelope, saga: Option<SagaRow>) -> (Effects, Result) {
    let info = info();
    let input = route.target(&info, &message).ok().and_then(|target| target.input);
    let incoming = Incoming { message: Arc::new(message), attempts: 0 };
    let context = Context::new(incoming, info, true);
    let output = route.run(Invocation { context, saga, input }).await;
    (output.context.into_parts().0, output.result)
}

/// The same for a starting message and what it is to do.
pub(super) async fn start(what: What) -> (Effects, Result) {
    run(route::<Order, Placed>(), envelope(&placed(what), Intent::Event), None).await
}

/// The same for a continuing one.
pub(super) async fn go_on(what: What) -> (Effects, Result) {
    let paid = Paid { order: "o1".into(), what };
    let row = row(1, r#"{"count":7}"#);
    run(route::<Order, Paid>(), envelope(&paid, Intent::Event), Some(row)).await
}

pub(super) fn placed(what: What) -> Placed {
    Placed { order: "o1".into(), what }
}
