// The wire name has letters that no queue or table should have to quote, or is too short or too long.
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(name = "")]
struct Empty;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "order placed")]
struct Space;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "bestellung.ausgelöst")]
struct Umlaut;

#[derive(Message, Serialize, Deserialize)]
#[message(name = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789")]
struct Long;

#[derive(Message, Serialize, Deserialize)]
#[message(name = 7)]
struct Number;

#[derive(Message, Serialize, Deserialize)]
#[message(name)]
struct NoValue;

fn main() {}
