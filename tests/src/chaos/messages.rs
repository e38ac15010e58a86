//! What is sent.

use sagabus::Message;
use serde::{Deserialize, Serialize};

/// Adds `n` to the list of the saga `tally` under `key`.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.add")]
pub struct Add {
    pub key: String,
    pub n: u64,
}

/// The same, with a row of the handler's own in the same transaction.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.add-own")]
pub struct AddOwn {
    pub key: String,
    pub n: u64,
}

/// An event with three handlers at one endpoint: two sagas and a function.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.happened")]
pub struct Happened {
    pub key: String,
    pub n: u64,
}

/// One of two halves; the second one to come completes the saga `pair`.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.half")]
pub struct Half {
    pub key: String,
    pub n: u64,
    pub left: bool,
}

/// Asks the saga `alarm` for a timeout.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.remind")]
pub struct Remind {
    pub key: String,
    pub n: u64,
    pub delay_ms: u64,
}

/// That timeout.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.ring")]
pub struct Ring {
    pub n: u64,
}

/// Fails as often as it says, then works.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.flaky")]
pub struct Flaky {
    pub n: u64,
    pub fails: u32,
}

/// Never works, and says so.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.poison")]
pub struct Poison {
    pub n: u64,
}

/// One of a sequence under `key`, for the ordered endpoint.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.step")]
pub struct Step {
    pub key: String,
    pub n: u64,
    pub fails: u32,
}

/// Says that a handler sent something: `from` is the handler.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "chaos.note")]
pub struct Note {
    pub from: String,
    pub key: String,
    pub n: u64,
}
