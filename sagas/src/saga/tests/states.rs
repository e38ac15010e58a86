use super::model::*;
use crate::{Handle, Result, Routes, Saga, SagaContext};
use sagabus_core::{HandlerError, Intent, SagaChange, SagaRow};
use serde::{Deserialize, Serialize};

async fn with(schema: u32, state: &str) -> Result<SagaChange> {
    let row = SagaRow { schema, ..row(1, state) };
    let paid = Paid { order: "o1".into(), ..Paid::default() };
    let (effects, result) = run(route::<Order, Paid>(), envelope(&paid, Intent::Event), Some(row)).await;
    result.map(|()| effects.saga.unwrap().change)
}

#[tokio::test]
async fn an_older_state_is_upgraded_and_stored_as_todays() {
    match with(1, r#"{"old_count":41}"#).await.unwrap() {
        SagaChange::Update { state, schema: 2, .. } => assert_eq!(state, r#"{"count":42}"#),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_names_saga_key_and_version() {
    for state in ["", "garbage", "{}", r#"{"count":-1}"#, "\u{0}"] {
        let error = with(2, state).await.unwrap_err();
        assert!(error.is_permanent());
        let text = error.to_string();
        assert!(
            text.starts_with("cannot decode the state of saga shop/order, key \"o1\", version 4, schema 2: "),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_that_fails_is_permanent_unless_the_state_is_newer() {
    let older = with(0, "{}").await.unwrap_err();
    let text =
        "cannot upgrade the state of saga shop/order, key \"o1\", version 4, from schema 0 to 2: only 1 is known";
    assert!(older.is_permanent());
    assert_eq!(older.to_string(), text);
    assert!(with(1, "{}").await.unwrap_err().is_permanent());
    assert!(!with(3, "{}").await.unwrap_err().is_permanent());
}

#[derive(Default, Serialize, Deserialize)]
struct Plain;

impl Saga for Plain {
    const NAME: &'static str = "order";
    const SCHEMA: u32 = 5;
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order.clone());
    }
}

impl Handle<Placed> for Plain {
    async fn handle(&mut self, _: Placed, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

#[test]
fn without_a_hook_the_error_says_what_to_do() {
    let text = |from| Plain::upgrade(from, serde_json::Value::Null).unwrap_err().to_string();
    assert!(text(4).contains("schema 4") && text(4).contains("5: write `Saga::upgrade`"));
    assert!(text(6).contains("a newer program stored it"));
}

/// Serialises, but not to JSON.
#[derive(Default, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

impl Saga for Unwritable {
    const NAME: &'static str = "order";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order.clone());
    }
}

impl Handle<Placed> for Unwritable {
    async fn handle(&mut self, m: Placed, ctx: &mut SagaContext) -> Result {
        ctx.publish(Done { order: m.order });
        Ok(())
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_encoded_fails_the_handler() {
    let message = envelope(&placed(What::Nothing), Intent::Event);
    let (effects, result) = run(route::<Unwritable, Placed>(), message, None).await;
    let error: HandlerError = result.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("not today"), "{error}");
    assert!(effects.sends.is_empty() && effects.saga.is_none());
}
