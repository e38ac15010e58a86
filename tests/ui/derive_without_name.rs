// The wire name is missing.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct NoAttribute;

#[derive(Message, Serialize, Deserialize)]
#[message()]
struct EmptyAttribute;

#[derive(Message, Serialize, Deserialize)]
#[message]
struct BareAttribute;

#[derive(Message, Serialize, Deserialize)]
#[message = "shop.order-placed"]
struct NoList;

fn main() {}
