//! What is wrong with a configuration is said at `build`, with what to change.

use crate::fixture::{Fixture, messages};
use sagabus::{
    Error, Runtime, ports::Capabilities, prelude::*, store::memory::MemoryStore, transport::memory::MemoryBroker,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

messages! {
    Thing "config.thing"
    Other "config.other"
}

async fn thing(_: Thing, _: &mut Context) -> Result {
    Ok(())
}

#[derive(Default, Serialize, Deserialize)]
struct Headless;

impl Saga for Headless {
    const NAME: &'static str = "headless";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.continued_by::<Thing>(|m| m.key.clone());
    }
}

impl Handle<Thing> for Headless {
    async fn handle(&mut self, _: Thing, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

struct Idle;

async fn error(builder: sagabus::EndpointBuilder, texts: &[&str]) -> Error {
    let error = builder.build().await.err().unwrap_or_else(|| panic!("built, although: {texts:?}"));
    for text in texts {
        assert!(error.to_string().contains(text), "{text:?} is not in: {error}");
    }
    error
}

pub(crate) async fn what_is_wrong_fails_at_build_with_the_fix(f: &Fixture) {
    let name = |name: &str| Endpoint::builder(name);
    let memory = || Arc::new(MemoryStore::new(Runtime::system()));
    let ok = || async { f.endpoint("shop").await };

    let invalid = [
        error(name("shop"), &["neither transport nor store", ".transport(\"sqlite://shop.db\")"]).await,
        error(name("shop").transport("memory://config").on(thing), &["no store", ".store(\"sqlite://shop.db\")"]).await,
        error(name("my shop").store(memory()), &["\"my shop\"", "allowed are letters"]).await,
        error(name("").store(memory()), &["name is empty"]).await,
        error(ok().await.route::<Thing>("x").route::<Thing>("y"), &["config.thing", "one owner", "publish it"]).await,
        error(ok().await.route::<Thing>("no such"), &["the route of config.thing", "allowed are letters"]).await,
        error(ok().await.on(thing).route::<Thing>("x"), &["handled here", "remove the handler or the route"]).await,
        error(ok().await.on(thing).on(thing), &["two handlers of config.thing", ".on_named("]).await,
        error(ok().await.saga::<Headless>(), &["headless", ".started_by::<"]).await,
        error(ok().await.service(Idle, |s| s), &["Idle", ".on::<"]).await,
        error(name("shop").store("redis://x"), &["\"redis\"", "sqlite://file.db"]).await,
        error(name("shop").transport("smtp://x").store(memory()), &["\"smtp\"", "sqlite://file.db"]).await,
        error(ok().await.concurrency(0), &["concurrency is 0"]).await,
        error(ok().await.batch(0), &["batch is 0"]).await,
        error(ok().await.lease(Duration::from_millis(5)), &["lease", "100 ms"]).await,
        error(ok().await.dedup_horizon(Duration::from_secs(1)), &["horizon", "twice"]).await,
    ];
    for error in invalid {
        assert!(error.is_invalid(), "{error:?}");
    }

    if !cfg!(feature = "kafka") {
        let kafka =
            error(name("shop").transport("kafka://localhost").store(memory()), &["`kafka`", "Cargo.toml"]).await;
        assert!(kafka.is_unsupported(), "{kafka:?}");
    }
    let mut capabilities = Capabilities::all();
    capabilities.ordered = false;
    let broker = MemoryBroker::with_capabilities(Runtime::system(), capabilities);
    let unordered = name("shop").transport(Arc::new(broker.transport())).store(memory()).on(thing);
    let unordered = error(unordered.ordered(), &["is ordered", "keeps no order"]).await;
    assert!(unordered.is_unsupported(), "{unordered:?}");

    // everything at once
    let many = ok().await.concurrency(0).batch(0).on(thing).on(thing).route::<Other>("a").route::<Other>("b");
    error(many, &["concurrency", "batch", "two handlers", "config.other"]).await;
}
