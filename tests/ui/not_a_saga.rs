// Something is added as a saga that is none.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct OrderSaga {
    order: u64,
}

fn endpoint() -> sagabus::EndpointBuilder {
    Endpoint::builder("shop").saga::<OrderSaga>()
}

fn main() {}
