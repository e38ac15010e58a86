// A function of something that is no message.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Plain;

async fn on_placed(_: Plain, _: &mut Context) -> Result {
    Ok(())
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").on(on_placed)
}

fn main() {}
