use super::model::*;
use sagabus_core::{Destination, Due as When, Intent, Message, SagaChange, SagaRow, TimerChange};
use std::time::Duration;

#[tokio::test]
async fn a_timeout_comes_back_to_this_instance() {
    let (effects, result) = go_on(What::Timeout).await;
    result.unwrap();
    let [TimerChange::Set { due, message, .. }] = &effects.timers[..] else { panic!("{:?}", effects.timers) };
    assert_eq!(*due, When::After(Duration::from_secs(60)));
    assert_eq!(message.headers.intent, Intent::Timeout);
    assert_eq!(message.headers.saga, Some(address("shop/order", 1)));
    assert_eq!((&message.headers.reply_to, &message.headers.originator), (&None, &None));
    assert!(message.headers.causation_id.is_some());
}

#[tokio::test]
async fn a_timeout_set_and_cancelled_at_once_is_none() {
    let (effects, _) = go_on(What::TimeoutAndCancel).await;
    assert!(effects.timers.is_empty(), "{:?}", effects.timers);
    let (effects, _) = start(What::CancelAll).await;
    assert!(effects.timers.is_empty(), "{:?}", effects.timers);
}

#[tokio::test]
async fn cancellations_come_before_what_is_set() {
    let (effects, _) = go_on(What::CancelThenSet).await;
    let [TimerChange::CancelType { instance, message_type, .. }, TimerChange::Set { message, .. }] =
        &effects.timers[..]
    else {
        panic!("{:?}", effects.timers)
    };
    assert_eq!((*instance, &**message_type), (row(1, "").instance, Due::NAME));
    assert_eq!(message.body, r#"{"note":"new"}"#);
}

#[tokio::test]
async fn only_routed_types_are_timeouts() {
    let (_, result) = go_on(What::NotATimeout).await;
    let text = result.unwrap_err().to_string();
    assert_eq!(
        text,
        "shop.ship is not a timeout of saga shop/order (its timeouts: order.due): add `.timeout::<Ship>()` to its routes"
    );
}

#[tokio::test]
async fn aliases_are_checked() {
    let alias = |name: &str, value: &str| go_on(What::Alias(name.into(), value.into()));
    let (effects, result) = alias("tracking", "T1").await;
    result.unwrap();
    assert_eq!(effects.saga.unwrap().aliases, [("tracking".to_string(), "T1".to_string())]);
    for (name, value, text) in [
        ("trackin", "T1", "(its aliases: tracking)"),
        ("tracking", "", "is empty"),
        ("tracking", "a\0", "NUL"),
        ("tracking", &"x".repeat(256), "255 are allowed"),
    ] {
        let error = alias(name, value).await.1.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn the_originator_is_answered_from_any_later_message() {
    let mut message = envelope(&placed(What::Answer), Intent::Command);
    message.headers.reply_to = Some("web".into());
    message.headers.correlation_id = Some("request 7".into());
    message.headers.originator = Some(address("web/checkout", 9));
    let (effects, result) = run(route::<Order, Placed>(), message, None).await;
    result.unwrap();
    let Some(SagaChange::Create { origin, .. }) = effects.saga.map(|w| w.change) else { panic!() };
    assert!(origin.is_some());

    let mut due = envelope(&Due::default(), Intent::Timeout);
    due.headers.saga = Some(address("shop/order", 1));
    let later = SagaRow { origin, ..row(1, r#"{"count":1}"#) };
    let (late, result) = run(route::<Order, Due>(), due, Some(later)).await;
    result.unwrap();

    for reply in [&effects.sends[0], &late.sends[0]] {
        assert_eq!(reply.to, Destination::Queue("web".into()));
        let headers = &reply.message.headers;
        assert_eq!(headers.intent, Intent::Reply);
        assert_eq!(headers.correlation_id.as_deref(), Some("request 7"));
        assert_eq!(headers.saga, Some(address("web/checkout", 9)));
        assert_eq!(headers.originator.as_ref().map(|a| &*a.kind), Some("shop/order"));
    }
}

#[tokio::test]
async fn the_originators_message_id_stands_in_for_a_correlation() {
    let mut message = envelope(&placed(What::Answer), Intent::Command);
    message.headers.reply_to = Some("web".into());
    let id = message.headers.message_id.to_string();
    let (effects, _) = run(route::<Order, Placed>(), message, None).await;
    assert_eq!(effects.sends[0].message.headers.correlation_id, Some(id));
}

#[tokio::test]
async fn without_an_address_for_replies_answering_fails() {
    let text = start(What::Answer).await.1.unwrap_err().to_string();
    assert!(text.contains("named no place for replies") && text.contains("\"o1\""), "{text}");
    let broken = SagaRow { origin: Some(b"garbage".as_slice().into()), ..row(1, r#"{"count":1}"#) };
    let paid = Paid { order: "o1".into(), what: What::Answer };
    let (_, result) = run(route::<Order, Paid>(), envelope(&paid, Intent::Event), Some(broken)).await;
    assert!(result.unwrap_err().to_string().contains("cannot decode the originator"));
}

#[tokio::test]
async fn a_saga_replies_as_a_plain_handler_does() {
    let mut message = envelope(&placed(What::Reply), Intent::Command);
    message.headers.reply_to = Some("web".into());
    let (effects, result) = run(route::<Order, Placed>(), message, None).await;
    result.unwrap();
    assert_eq!(effects.sends[0].to, Destination::Queue("web".into()));
    assert!(start(What::Reply).await.1.is_err());
}
