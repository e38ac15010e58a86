//! What travels with a message, from one to the next.

use crate::fixture::{Fixture, messages};
use sagabus::{message::Headers, prelude::*};
use std::sync::Mutex;

messages! {
    First "head.first"
    Second "head.second"
    Third "head.third"
}

/// By the first message's id, so that the set-ups do not see each other's.
static SEEN: Mutex<Vec<(crate::fixture::Run, Headers)>> = Mutex::new(Vec::new());

fn see(run: crate::fixture::Run, ctx: &Context) {
    SEEN.lock().unwrap().push((run, ctx.headers().clone()));
    run.note("seen");
}

async fn first(m: First, ctx: &mut Context) -> Result {
    see(m.run, ctx);
    let options = SendOptions::new().header("own", "2").propagated_header("tenant", "other").key("k");
    match m.n {
        0 => ctx.send(Second::new(m.run, &m.key, 0)),
        _ => ctx.send_with(Second::new(m.run, &m.key, 0), options),
    }
    Ok(())
}

async fn second(m: Second, ctx: &mut Context) -> Result {
    see(m.run, ctx);
    ctx.publish(Third::new(m.run, &m.key, 0));
    Ok(())
}

async fn third(m: Third, ctx: &mut Context) -> Result {
    see(m.run, ctx);
    Ok(())
}

async fn chain(f: &Fixture, n: u64) -> Vec<Headers> {
    let shop = f.start(f.endpoint("shop").await.on(first).on(second)).await;
    f.start(f.endpoint("mail").await.on(third)).await;
    let options = SendOptions::new().header("local", "1").propagated_header("tenant", "acme");
    shop.bus().send_with(First::new(f.run, "k", n), options).await.unwrap();
    f.noted("seen", 3).await;
    SEEN.lock().unwrap().iter().filter(|(run, _)| *run == f.run).map(|(_, headers)| headers.clone()).collect()
}

fn names(headers: &Headers) -> Vec<String> {
    headers.user.iter().map(|(name, header)| format!("{name}={}", header.value)).collect()
}

pub(crate) async fn user_headers_propagate_when_marked(f: &Fixture) {
    let seen = chain(f, 1).await;
    assert_eq!(names(&seen[0]), ["local=1", "tenant=acme"]);
    assert_eq!(names(&seen[1]), ["own=2", "tenant=other"], "its own first");
    assert_eq!(names(&seen[2]), ["tenant=other"]);
    let keys: Vec<_> = seen.iter().map(|headers| headers.order_key.as_deref()).collect();
    assert_eq!(keys, [None, Some("k"), None]);
}

pub(crate) async fn causation_and_conversation_are_kept(f: &Fixture) {
    let seen = chain(f, 0).await;
    assert_eq!(seen[0].causation_id, None);
    assert_eq!(seen[0].conversation_id, seen[0].message_id.0);
    for (cause, effect) in seen.iter().zip(&seen[1..]) {
        assert_eq!(effect.causation_id, Some(cause.message_id));
        assert_eq!(effect.conversation_id, seen[0].conversation_id);
        assert_ne!(effect.message_id, cause.message_id);
        assert_eq!(names(effect), ["tenant=acme"]);
    }
    assert_eq!(seen[2].reply_to.as_deref(), Some("shop"));
}
