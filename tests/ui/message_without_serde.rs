// A message that cannot be encoded.
use sagabus::prelude::*;

#[derive(Message)]
#[message(name = "shop.order-placed")]
struct OrderPlaced {
    order: u64,
}

fn main() {}
