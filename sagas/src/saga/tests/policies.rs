use super::model::*;
use crate::{Handle, Result, Routes, Saga, SagaContext};
use sagabus_core::{Decision, Envelope, Intent, NotFound, OnExisting, SagaRow};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The same messages under other policies.
#[derive(Default, Serialize, Deserialize)]
struct Strict;

#[derive(Default, Serialize, Deserialize)]
struct Lax;

macro_rules! policies {
    ($saga:ident, $existing:ident, $not_found:ident) => {
        impl Saga for $saga {
            const NAME: &'static str = "order";
            type Key = String;
            fn routes(r: &mut Routes<Self>) {
                r.started_by::<Placed>(|m| m.order.clone())
                    .on_existing(OnExisting::$existing)
                    .continued_by::<Paid>(|m| m.order.clone())
                    .on_not_found(NotFound::$not_found)
                    .continued_by_alias::<Tracked>("tracking", |m| m.tracking.clone())
                    .on_not_found(NotFound::$not_found);
            }
        }
        policies!(@ $saga Placed Paid Tracked);
    };
    (@ $saga:ident $($message:ident)*) => {$(
        impl Handle<$message> for $saga {
            async fn handle(&mut self, _: $message, _: &mut SagaContext) -> Result {
                Ok(())
            }
        }
    )*};
}
policies!(Strict, DeadLetter, DeadLetter);
policies!(Lax, Discard, Discard);

fn starter<S: Saga>(saga: Option<&SagaRow>) -> Decision {
    route::<S, Placed>().decide(&envelope(&placed(What::Nothing), Intent::Event), saga)
}

fn follower<S: Saga>(saga: Option<&SagaRow>) -> Decision {
    route::<S, Paid>().decide(&envelope(&Paid::default(), Intent::Event), saga)
}

fn by_alias<S: Saga>(saga: Option<&SagaRow>) -> Decision {
    route::<S, Tracked>().decide(&envelope(&Tracked::default(), Intent::Event), saga)
}

fn reply() -> Envelope {
    let mut reply = envelope(&Paid::default(), Intent::Reply);
    reply.headers.saga = Some(address("shop/order", 1));
    reply
}

fn live() -> SagaRow {
    row(1, "{}")
}

fn kept() -> SagaRow {
    SagaRow { completed: true, ..live() }
}

fn is_dead(decision: Decision, text: &str) {
    match decision {
        Decision::DeadLetter(reason) => assert!(reason.contains(text) && reason.contains("shop/order"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_starter() {
    for saga in [None, Some(&kept())] {
        assert_eq!(starter::<Order>(saga), Decision::Run);
        assert_eq!(starter::<Strict>(saga), Decision::Run);
        assert_eq!(starter::<Lax>(saga), Decision::Run);
    }
    assert_eq!(starter::<Order>(Some(&live())), Decision::Run);
    is_dead(starter::<Strict>(Some(&live())), "exists already under key \"o1\"");
    assert_eq!(starter::<Lax>(Some(&live())), Decision::Drop("saga-exists"));
}

#[test]
fn a_follower() {
    for decide in [follower::<Order>, by_alias::<Order>] {
        assert_eq!(decide(None), Decision::Park(Duration::from_secs(300)));
        assert_eq!(decide(Some(&live())), Decision::Run);
        is_dead(decide(Some(&kept())), "has ended");
    }
    for decide in [follower::<Strict>, by_alias::<Strict>] {
        is_dead(decide(None), "does not start one");
        assert_eq!(decide(Some(&live())), Decision::Run);
        is_dead(decide(Some(&kept())), "has ended");
    }
    for decide in [follower::<Lax>, by_alias::<Lax>] {
        assert_eq!(decide(None), Decision::Drop("saga-not-found"));
        assert_eq!(decide(Some(&live())), Decision::Run);
        assert_eq!(decide(Some(&kept())), Decision::Drop("saga-not-found"));
    }
}

#[test]
fn a_reply_is_for_one_instance_only() {
    let decide = |saga: Option<&SagaRow>| route::<Order, Paid>().decide(&reply(), saga);
    assert_eq!(decide(Some(&live())), Decision::Run);
    for saga in [None, Some(&kept()), Some(&row(2, "{}"))] {
        is_dead(decide(saga), "has ended");
        is_dead(route::<Strict, Paid>().decide(&reply(), saga), "has ended");
        assert_eq!(route::<Lax, Paid>().decide(&reply(), saga), Decision::Drop("saga-not-found"));
    }
}

#[test]
fn a_reply_never_starts_a_saga() {
    let mut reply = envelope(&placed(What::Nothing), Intent::Reply);
    reply.headers.saga = Some(address("shop/order", 1));
    let decide = |saga: Option<&SagaRow>| route::<Order, Placed>().decide(&reply, saga);
    assert_eq!(decide(Some(&live())), Decision::Run);
    is_dead(decide(None), "has ended");
    is_dead(decide(Some(&row(2, "{}"))), "has ended");
}

#[test]
fn a_timeout() {
    let mut due = envelope(&Due::default(), Intent::Timeout);
    due.headers.saga = Some(address("shop/order", 1));
    let decide = |saga: Option<&SagaRow>| route::<Order, Due>().decide(&due, saga);
    assert!(route::<Order, Due>().is_timeout());
    assert_eq!(decide(Some(&live())), Decision::Run);
    for saga in [None, Some(&kept()), Some(&row(2, "{}"))] {
        assert_eq!(decide(saga), Decision::Drop("late-timeout"));
    }
}
