//! Configurations that cannot work are refused at `build`, with the fix in the text.

use sagabus::{Endpoint, EndpointBuilder, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "configuration.a")]
struct A;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "configuration.a")]
struct AlsoA;

#[derive(Default, Serialize, Deserialize)]
struct NeverStarted;

impl Saga for NeverStarted {
    const NAME: &'static str = "never-started";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.continued_by::<A>(|_| 1);
    }
}

impl Handle<A> for NeverStarted {
    async fn handle(&mut self, _: A, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Both;

impl Saga for Both {
    const NAME: &'static str = "both";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<A>(|_| 1).timeout::<A>();
    }
}

impl Handle<A> for Both {
    async fn handle(&mut self, _: A, _: &mut SagaContext) -> Result {
        Ok(())
    }
}

async fn a(_: A, _: &mut Context) -> Result {
    Ok(())
}

async fn also_a(_: AlsoA, _: &mut Context) -> Result {
    Ok(())
}

fn shop() -> EndpointBuilder {
    Endpoint::builder("shop").store(format!("memory://{}", uuid::Uuid::now_v7()))
}

/// Each with the words that tell what to do about it.
#[tokio::test]
async fn what_cannot_work_is_refused_with_the_fix() {
    let wrong: Vec<(&str, EndpointBuilder, &[&str])> = vec![
        ("no place at all", Endpoint::builder("shop").on(a), &[".transport(\"sqlite://shop.db\")"]),
        ("no store", Endpoint::builder("shop").transport("memory://x").on(a), &[".store(\"sqlite://shop.db\")"]),
        ("a bad name", Endpoint::builder("sh op").store("memory://x").on(a), &["\"sh op\"", "allowed are letters"]),
        ("an unknown transport", shop().transport("gopher://x").on(a), &["gopher", "sqlite://"]),
        // off in this build of the workspace, whatever its packages ask for among themselves
        #[cfg(not(feature = "kafka"))]
        ("a feature that is off", shop().transport("kafka://guest:hunter2@x").on(a), &["`kafka`", "Cargo.toml"]),
        ("an unknown store", Endpoint::builder("shop").store("mysql://x").on(a), &["mysql", "sqlite://"]),
        ("one name, two types", shop().on(a).on_named("b", also_a), &["configuration.a", "another name"]),
        ("one handler twice", shop().on(a).on(a), &["on_named"]),
        ("a saga that never starts", shop().saga::<NeverStarted>(), &["never-started", "started_by"]),
        ("a saga added twice", shop().saga::<Both>().saga::<Both>(), &["keep one"]),
        ("timeout and message", shop().saga::<Both>(), &["make a type of its own"]),
        ("handled here, routed there", shop().on(a).route::<A>("other"), &["remove the handler or the route"]),
        ("two owners", shop().route::<A>("one").route::<A>("two"), &["one owner", "publish"]),
        ("a bad owner", shop().route::<A>("o ne"), &["\"o ne\""]),
        ("no handler may run", shop().on(a).concurrency(0), &["concurrency is 0"]),
        ("an empty batch", shop().on(a).batch(0), &["batch is 0"]),
        ("a lease too short", shop().on(a).lease(Duration::from_millis(1)), &["100 ms"]),
        ("a horizon too short", shop().on(a).dedup_horizon(Duration::from_secs(1)), &["under a minute"]),
        ("SQLite in memory", Endpoint::builder("shop").store("sqlite::memory:").on(a), &["memory://"]),
        ("no such directory", Endpoint::builder("shop").store("sqlite:///no/such/dir/x.db").on(a), &["/no/such/dir"]),
    ];
    for (what, builder, words) in wrong {
        let Err(error) = builder.build().await else { panic!("{what}: it was built") };
        assert!(error.is_invalid() || error.is_unsupported(), "{what}: {error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{what}: {error} does not say {word:?}");
        }
        assert!(!format!("{error:?}").contains("hunter2"), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let error = shop().on(a).on(a).batch(0).saga::<NeverStarted>().build().await;
    let text = error.err().unwrap().to_string();
    for word in ["on_named", "batch is 0", "never-started"] {
        assert!(text.contains(word), "{text} does not say {word}");
    }
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_refused_where_it_may_not_be_made() {
    let dir = std::env::temp_dir().join(format!("sagabus-acceptance-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&dir).unwrap();
    let url = format!("sqlite://{}", dir.join("x.db").display());
    let error = Endpoint::builder("shop").store(url).migrate(false).on(a).build().await.err().unwrap();
    assert!(error.to_string().contains("migrate"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}
