use super::model::*;
use sagabus_core::{HandlerError, Intent, Message, Route, SagaLookup};
use std::sync::Arc;

fn lookup(route: &Arc<dyn Route>, message: &sagabus_core::Envelope) -> Result<SagaLookup, HandlerError> {
    let target = route.target(&info(), message)?;
    assert!(target.input.is_some());
    Ok(target.saga.unwrap())
}

#[test]
fn by_key_by_alias_by_instance() {
    let placed = envelope(&placed(What::Nothing), Intent::Event);
    let key = SagaLookup::Key { kind: "shop/order".into(), key: "o1".into() };
    assert_eq!(lookup(&route::<Order, Placed>(), &placed).unwrap(), key);

    let tracked = Tracked { tracking: "ü'1".into() };
    let alias = SagaLookup::Alias { kind: "shop/order".into(), alias: "tracking".into(), value: "ü'1".into() };
    assert_eq!(lookup(&route::<Order, Tracked>(), &envelope(&tracked, Intent::Event)).unwrap(), alias);

    let mut reply = envelope(&Paid::default(), Intent::Reply);
    reply.headers.saga = Some(address("shop/order", 1));
    let instance = SagaLookup::Instance(address("shop/order", 1));
    assert_eq!(lookup(&route::<Order, Paid>(), &reply).unwrap(), instance);

    let mut due = envelope(&Due::default(), Intent::Timeout);
    due.headers.saga = Some(address("shop/order", 1));
    assert_eq!(lookup(&route::<Order, Due>(), &due).unwrap(), instance);
}

#[test]
fn events_and_commands_never_correlate_by_address() {
    for intent in [Intent::Event, Intent::Command] {
        let mut paid = envelope(&Paid { order: "o9".into(), ..Paid::default() }, intent);
        paid.headers.saga = Some(address("shop/order", 1));
        let found = lookup(&route::<Order, Paid>(), &paid).unwrap();
        assert!(matches!(found, SagaLookup::Key { key, .. } if key == "o9"));
    }
}

#[test]
fn a_reply_to_another_saga_is_not_for_this_one() {
    for kind in ["shop/orders", "shop/orde", "other/order", "order", "shop/order/2"] {
        let mut reply = envelope(&Paid::default(), Intent::Reply);
        reply.headers.saga = Some(address(kind, 1));
        let route = route::<Order, Paid>();
        let error = lookup(&route, &reply).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn a_reply_without_an_address_correlates_by_key() {
    let reply = envelope(&Paid { order: "o1".into(), ..Paid::default() }, Intent::Reply);
    let found = lookup(&route::<Order, Paid>(), &reply).unwrap();
    assert!(matches!(found, SagaLookup::Key { key, .. } if key == "o1"));
}

#[test]
fn a_timeout_without_an_address_is_refused() {
    for intent in [Intent::Timeout, Intent::Command] {
        let error = lookup(&route::<Order, Due>(), &envelope(&Due::default(), intent)).unwrap_err();
        assert!(error.is_permanent());
        assert!(error.to_string().contains("ctx.timeout"), "{error}");
    }
}

#[test]
fn keys_have_limits() {
    let key = |order: String| {
        let placed = Placed { order, what: What::Nothing };
        lookup(&route::<Order, Placed>(), &envelope(&placed, Intent::Event))
    };
    assert!(key("x".repeat(255)).is_ok());
    assert!(key("日本 \u{202e}'\"\\".into()).is_ok());
    for (bad, text) in
        [(String::new(), "is empty"), ("x".repeat(256), "256 bytes long, 255 are allowed"), ("a\0b".into(), "NUL")]
    {
        let error = key(bad).map(drop).unwrap_err();
        assert!(error.is_permanent());
        let shown = error.to_string();
        assert!(shown.contains(text) && shown.contains("the key of shop.placed for saga shop/order"), "{shown}");
    }
    let alias = envelope(&Tracked::default(), Intent::Event);
    let error = lookup(&route::<Order, Tracked>(), &alias).unwrap_err();
    assert_eq!(error.to_string(), "the tracking of shop.tracked for saga shop/order is empty");
}

#[test]
fn garbage_is_a_permanent_error_and_no_panic() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: [&[u8]; 8] = [
        b"",
        b"null",
        b"{",
        b"\xff\xfe\x00",
        b"{\"order\":7}",
        b"{\"order\":\"a\",\"what\":\"Never\"}",
        b"[[[[",
        deep.as_bytes(),
    ];
    for body in bodies {
        for content_type in ["application/json", "", "text/plain", "application/json; charset=\u{0}"] {
            let mut message = envelope(&placed(What::Nothing), Intent::Event);
            message.body = body.to_vec().into();
            message.headers.content_type = content_type.into();
            let error = lookup(&route::<Order, Placed>(), &message).unwrap_err();
            assert!(error.is_permanent());
            assert!(error.chain().join(": ").contains(Placed::NAME), "{error:?}");
        }
    }
}
