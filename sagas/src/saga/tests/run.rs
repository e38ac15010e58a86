use super::model::*;
use crate::{Handle, Result, Routes, Saga, SagaContext};
use sagabus_core::{Intent, InvocationContext, SagaChange, SagaRow};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[tokio::test]
async fn a_starter_creates() {
    let (effects, result) = start(What::Send).await;
    result.unwrap();
    let write = effects.saga.unwrap();
    assert_eq!((&*write.kind, &*write.key), ("shop/order", "o1"));
    let SagaChange::Create { instance, state, schema: 2, origin: None } = write.change else {
        panic!("{:?}", write.change)
    };
    assert_eq!(state, r#"{"count":1}"#);
    let originator = effects.sends[0].message.headers.originator.clone().unwrap();
    assert_eq!((originator.instance, &*originator.key), (instance, "o1"));
}

#[tokio::test]
async fn each_start_makes_an_instance_of_its_own() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        let Some(SagaChange::Create { instance, .. }) = start(What::Nothing).await.0.saga.map(|w| w.change) else {
            panic!()
        };
        assert!(seen.insert(instance));
    }
}

#[tokio::test]
async fn a_follower_updates_what_was_loaded() {
    let (effects, result) = go_on(What::Nothing).await;
    result.unwrap();
    match effects.saga.unwrap().change {
        SagaChange::Update { instance, version: 4, state, schema: 2 } => {
            assert_eq!(instance, row(1, "").instance);
            assert_eq!(state, r#"{"count":8}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_follower_without_a_saga_is_refused_whatever_the_caller_thinks() {
    let (effects, result) = run(route::<Order, Paid>(), envelope(&Paid::default(), Intent::Event), None).await;
    assert!(result.unwrap_err().to_string().contains("does not start"));
    assert!(effects.saga.is_none());
}

#[tokio::test]
async fn completing_takes_timers_and_aliases_along() {
    let (effects, result) = go_on(What::TimeoutAndComplete).await;
    result.unwrap();
    assert_eq!(effects.sends.len(), 1);
    assert!(effects.timers.is_empty());
    let write = effects.saga.unwrap();
    assert!(write.aliases.is_empty());
    assert!(matches!(write.change, SagaChange::Complete { version: 4, keep: None, .. }));
}

#[tokio::test]
async fn start_and_complete_at_once() {
    let (effects, result) = start(What::Complete).await;
    result.unwrap();
    assert!(matches!(effects.saga.unwrap().change, SagaChange::Complete { version: 0, keep: None, .. }));
}

#[tokio::test]
async fn a_kept_completed_saga_is_a_new_instance_for_a_starter() {
    let kept = SagaRow { completed: true, ..row(1, r#"{"count":7}"#) };
    let message = envelope(&placed(What::Nothing), Intent::Event);
    let (effects, result) = run(route::<Order, Placed>(), message, Some(kept)).await;
    result.unwrap();
    match effects.saga.unwrap().change {
        SagaChange::Create { instance, state, .. } => {
            assert_ne!(instance, row(1, "").instance);
            assert_eq!(state, r#"{"count":1}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_failed_run() {
    for (what, permanent) in [
        (What::SendAndFail, false),
        (What::SendAndFailForGood, true),
        (What::SendUnroutable, true),
        (What::NotATimeout, true),
        (What::Alias("tracking".into(), String::new()), true),
    ] {
        for (effects, result) in [start(what.clone()).await, go_on(what.clone()).await] {
            assert_eq!(result.unwrap_err().is_permanent(), permanent, "{what:?}");
            assert!(effects.saga.is_none() && effects.sends.is_empty() && effects.timers.is_empty());
        }
    }
}

#[tokio::test]
async fn a_later_run_decodes_again() {
    let route = route::<Order, Placed>();
    let info = info();
    for input in [None, Some(Box::new(7_u32) as Box<dyn std::any::Any + Send>)] {
        let incoming =
            sagabus_core::Incoming { message: envelope(&placed(What::Send), Intent::Event).into(), attempts: 1 };
        let context = sagabus_core::Context::new(incoming, info.clone(), true);
        let run = sagabus_core::Invocation { context, saga: None, input };
        let output = route.clone().run(run).await;
        output.result.unwrap();
        assert_eq!(output.context.into_parts().0.sends.len(), 1);
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    seen: bool,
}

impl Saga for Kept {
    const NAME: &'static str = "order";
    const KEEP_COMPLETED: Option<Duration> = Some(Duration::from_secs(3600));
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order.clone());
    }
}

impl Handle<Placed> for Kept {
    async fn handle(&mut self, _: Placed, ctx: &mut SagaContext) -> Result {
        self.seen = true;
        ctx.complete();
        Ok(())
    }
}

#[tokio::test]
async fn a_completed_saga_may_be_kept() {
    let message = envelope(&placed(What::Nothing), Intent::Event);
    let loaded = SagaRow { schema: 1, ..row(1, r#"{"seen":false}"#) };
    let (effects, result) = run(route::<Kept, Placed>(), message, Some(loaded)).await;
    result.unwrap();
    match effects.saga.unwrap().change {
        SagaChange::Complete { version: 4, keep: Some((time, state)), .. } => {
            assert_eq!(time, Duration::from_secs(3600));
            assert_eq!(state, r#"{"seen":true}"#);
        }
        other => panic!("{other:?}"),
    }
}
