// A generic message: all of its instances would share one name.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.changed")]
struct Changed<T> {
    to: T,
}

fn main() {}
