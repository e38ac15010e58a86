// An option that does not exist, and a path that is none.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(nmae = "a")]
struct Typo;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "a", crate = "my bus")]
struct Path;

fn main() {}
