//! The smallest program: one handler, one event.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hello.greeting")]
struct Greeting {
    name: String,
}

async fn greet(m: Greeting, _: &mut Context) -> Result {
    println!("Hello, {}!", m.name);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let hello = Endpoint::builder("hello").transport("sqlite://hello.db").on(greet).build().await?.start().await?;
    hello.bus().publish(Greeting { name: "world".into() }).await?;
    while hello.stats().handled == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    hello.stop().await
}
