//! The smallest program: one handler, one event, one file.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hello.greeting")]
struct Greeting {
    name: String,
}

static GREETED: Notify = Notify::const_new();

async fn greet(m: Greeting, _: &mut Context) -> Result {
    println!("Hello, {}!", m.name);
    GREETED.notify_one();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let hello = Endpoint::builder("hello").transport("sqlite://hello.db").on(greet).build().await?;
    hello.bus().publish(Greeting { name: "world".into() }).await?;
    hello.run_until(GREETED.notified()).await
}
