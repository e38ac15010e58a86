// An option is given twice.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "a", name = "b")]
struct InOne;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "a")]
#[message(name = "b")]
struct InTwo;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "a", crate = "sagabus", crate = "sagabus")]
struct Crate;

fn main() {}
