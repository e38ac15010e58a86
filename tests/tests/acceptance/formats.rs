//! Encodings, and states that outlive the program that wrote them.

use crate::fixture::{Entry, Fixture, messages};
use sagabus::{
    Error, ErrorKind,
    message::{BodyCodec, Codec, Intent},
    ports,
    prelude::*,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

messages! {
    Add "format.add"
}

/// JSON backwards: surely not JSON.
struct Reversed;

impl BodyCodec for Reversed {
    fn content_type(&self) -> &str {
        "application/x-reversed"
    }

    fn encode(&self, value: &Value) -> ports::Result<Vec<u8>> {
        let mut bytes = value.to_string().into_bytes();
        bytes.reverse();
        Ok(bytes)
    }

    fn decode(&self, body: &[u8]) -> ports::Result<Value> {
        let mut bytes = body.to_vec();
        bytes.reverse();
        serde_json::from_slice(&bytes).map_err(|e| Error::with_source(ErrorKind::Invalid, "decode reversed", e))
    }
}

/// As the first program wrote it.
#[derive(Default, Serialize, Deserialize)]
struct Old {
    total: u64,
}

/// As the second one does: schema 2 counts too.
#[derive(Default, Serialize, Deserialize)]
struct New {
    sum: u64,
    additions: u64,
}

impl Saga for Old {
    const NAME: &'static str = "sum";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key.clone());
    }
}

impl Handle<Add> for Old {
    async fn handle(&mut self, m: Add, _: &mut SagaContext) -> Result {
        self.total += m.n;
        m.run.note(format!("total {}", self.total));
        Ok(())
    }
}

impl Saga for New {
    const NAME: &'static str = "sum";
    const SCHEMA: u32 = 2;
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key.clone());
    }
    fn upgrade(from: u32, state: Value) -> Result<Value> {
        assert_eq!(from, 1);
        Ok(serde_json::json!({ "sum": state["total"], "additions": 1 }))
    }
}

impl Handle<Add> for New {
    async fn handle(&mut self, m: Add, _: &mut SagaContext) -> Result {
        self.sum += m.n;
        self.additions += 1;
        m.run.note(format!("sum {} of {}", self.sum, self.additions));
        Ok(())
    }
}

async fn entry(m: Entry, ctx: &mut Context) -> Result {
    m.run.note(ctx.headers().content_type.clone());
    Ok(())
}

pub(crate) async fn a_custom_codec_carries_messages(f: &Fixture) {
    let build = || async { f.endpoint("shop").await.saga::<Old>().on(entry).codec(Codec::custom(Reversed)) };
    let first = f.start(build().await).await;
    first.bus().send(Add::new(f.run, "k", 1)).await.unwrap();
    f.noted("total 1", 1).await;
    first.bus().send(Entry::new(f.run, "k", 1)).await.unwrap();
    f.noted("application/x-reversed", 1).await;
    first.stop().await.unwrap();
    let row = f.admin().await.saga("shop/sum", "k").await.unwrap().unwrap();
    assert_eq!(&row.state[..], b"{\"total\":1}", "states stay readable");

    // the next program reads JSON too, which may have been under way
    let second = f.start(build().await).await;
    let json = serde_json::to_vec(&Add::new(f.run, "k", 4)).unwrap();
    f.inject("shop", "format.add", Intent::Command, &json, |_| {}).await;
    f.noted("total 5", 1).await;
    assert_eq!(second.stats().dead, 0);
}

pub(crate) async fn an_older_state_is_upgraded(f: &Fixture) {
    let first = f.start(f.endpoint("shop").await.saga::<Old>()).await;
    first.bus().send(Add::new(f.run, "k", 3)).await.unwrap();
    f.noted("total 3", 1).await;
    first.stop().await.unwrap();
    let second = f.start(f.endpoint("shop").await.saga::<New>()).await;
    for (n, after) in [(4, "sum 7 of 2"), (5, "sum 12 of 3")] {
        second.bus().send(Add::new(f.run, "k", n)).await.unwrap();
        f.noted(after, 1).await;
    }
    assert_eq!(f.run.notes(), ["total 3", "sum 7 of 2", "sum 12 of 3"]);
    second.stop().await.unwrap();
    assert_eq!(f.admin().await.saga("shop/sum", "k").await.unwrap().unwrap().schema, 2);

    // the older program, still running beside it, leaves what it does not understand to the newer one
    let old = f.start(f.endpoint("shop").await.saga::<Old>()).await;
    old.bus().send(Add::new(f.run, "k", 1)).await.unwrap();
    f.eventually("failures", || async { old.stats().failures >= 2 }).await;
    assert_eq!(f.run.count("total 13"), 0);
}
