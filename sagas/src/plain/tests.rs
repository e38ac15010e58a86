use crate::{Consume, Result, function_route, service_routes};
use sagabus_core::{
    Codec, Context, Decision, Effects, EndpointInfo, Envelope, HandlerError, Headers, Incoming, Intent, Invocation,
    InvocationContext, Limits, Message, MessageId, NodeId, Route, Runtime,
};
use sagabus_macros::Message;
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.ship", crate = "sagabus_core")]
struct Ship {
    fail: bool,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.shipped", crate = "sagabus_core")]
struct Shipped;

async fn ship(message: Ship, ctx: &mut Context) -> Result {
    ctx.publish(Shipped);
    tokio::task::yield_now().await;
    if message.fail {
        return Err(HandlerError::new("no carrier"));
    }
    Ok(())
}

struct Shipping {
    shipped: Arc<AtomicU32>,
}

impl Consume<Ship> for Shipping {
    async fn consume(&self, message: Ship, ctx: &mut Context) -> Result {
        self.shipped.fetch_add(1, Ordering::Relaxed);
        ship(message, ctx).await
    }
}

impl Consume<Shipped> for Shipping {
    async fn consume(&self, _: Shipped, ctx: &mut Context) -> Result {
        ctx.send(Ship { fail: false });
        Ok(())
    }
}

async fn run<M: Message>(route: &Arc<dyn Route>, message: M) -> (Effects, Result) {
    let runtime = Runtime::system();
    let headers = Headers::new(MessageId(runtime.uuid()), M::NAME, Intent::Command, runtime.now());
    let message = Envelope::new(headers, serde_json::to_vec(&message).unwrap());
    let info = Arc::new(EndpointInfo {
        name: "shop".into(),
        node: NodeId(runtime.uuid()),
        codec: Codec::json(),
        limits: Limits::default(),
        runtime,
        owners: std::collections::HashMap::new(),
        reply_to: None,
        store: None,
    });
    let target = route.target(&info, &message).unwrap();
    assert!(target.saga.is_none());
    assert_eq!(route.decide(&message, None), Decision::Run);
    let incoming = Incoming { message: Arc::new(message), attempts: 0 };
    let run = Invocation { context: Context::new(incoming, info, true), saga: None, input: target.input };
    let output = Arc::clone(route).run(run).await;
    (output.context.into_parts().0, output.result)
}

#[tokio::test]
async fn functions_and_closures() {
    let closure = function_route(None, async |message: Ship, ctx: &mut Context| ship(message, ctx).await);
    for route in [function_route(None, ship), closure] {
        assert_eq!((&**route.handler(), route.message_type()), ("shop.ship", "shop.ship"));
        let (effects, result) = run(&route, Ship { fail: false }).await;
        result.unwrap();
        assert_eq!(effects.sends.len(), 1);
        let (effects, result) = run(&route, Ship { fail: true }).await;
        assert_eq!(result.unwrap_err().to_string(), "no carrier");
        assert!(effects.sends.is_empty());
    }
}

#[tokio::test]
async fn a_service_is_one_value() {
    let shipped = Arc::new(AtomicU32::new(0));
    let service = Shipping { shipped: Arc::clone(&shipped) };
    let routes = service_routes(service, |s| s.on::<Ship>().on::<Shipped>()).unwrap();
    assert_eq!(routes.len(), 2);
    run(&routes[0], Ship { fail: false }).await.1.unwrap();
    run(&routes[0], Ship { fail: false }).await.1.unwrap();
    assert_eq!(shipped.load(Ordering::Relaxed), 2);
    // It does not know who owns `shop.ship`, and says so by failing.
    let (effects, result) = run(&routes[1], Shipped).await;
    assert!(result.unwrap_err().to_string().contains("does not know who owns"));
    assert!(effects.sends.is_empty());
}

#[test]
fn handler_names() {
    let named = |name: Option<&str>| {
        let service = Shipping { shipped: Arc::default() };
        let routes = service_routes(service, |s| {
            let s = s.on::<Ship>().on::<Shipped>();
            match name {
                Some(name) => s.named(name),
                None => s,
            }
        });
        let names = routes.unwrap();
        names.iter().map(|r| r.handler().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(named(None), ["shop.ship", "shop.shipped"]);
    assert_eq!(named(Some("shipping")), ["shipping", "shipping"]);
}

#[test]
fn garbage_is_a_permanent_error() {
    let route = function_route(None, ship);
    let runtime = Runtime::system();
    let headers = Headers::new(MessageId(runtime.uuid()), "shop.ship", Intent::Command, runtime.now());
    let info = EndpointInfo {
        name: "shop".into(),
        node: NodeId(runtime.uuid()),
        codec: Codec::json(),
        limits: Limits::default(),
        runtime,
        owners: std::collections::HashMap::new(),
        reply_to: None,
        store: None,
    };
    for body in ["", "[1]", "{\"fail\":3}", "\u{0}"] {
        let message = Envelope::new(headers.clone(), body.as_bytes().to_vec());
        let error = route.target(&info, &message).map(drop).unwrap_err();
        assert!(error.is_permanent(), "{body:?}");
    }
}
