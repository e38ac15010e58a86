//! The same random operations on several stores, whose answers and contents must be equal.
//!
//! Where the conformance suite knows what is right, this knows only that the stores agree: with the first one, which is
//! the memory store, whose model is simple enough to be believed. It reaches the combinations that no case was written
//! for. Everything goes through the ports, one operation after another; what may differ is given a name in the order in
//! which it is first seen (ids and tokens of rows, epochs) or is rounded (times of the database's clock).

mod answer;
mod draw;
mod dump;
mod messages;
mod names;
mod op;
mod run;
mod store_under_test;
mod units;

pub use run::{Counts, Difference, Settings, compare};

use sagabus_core::NodeId;
use uuid::Uuid;

/// The endpoints that the operations are of.
const ENDPOINTS: [&str; 2] = ["shop", "billing"];
/// Their handlers.
const HANDLERS: [&str; 2] = ["order", "audit"];
/// Their kinds of sagas, which differ by case only, so that a store which folds it is seen.
const KINDS: [&str; 2] = ["order", "Order"];
/// Correlation values, some of them odd.
const KEYS: [&str; 14] =
    ["k", "K", "k ", "ä", "a\u{0}b", "a\u{1}b", "%_", "'; --", "k1", "k2", "k3", "k4", "k5", "\u{1f600}"];
/// Names of aliases; their values are the keys.
const ALIASES: [&str; 2] = ["invoice", "parcel"];
/// Queues. The last one is never declared.
const QUEUES: [&str; 4] = ["q1", "Q1", "shop", "nowhere"];
/// Topics, of which the last one never has a subscriber.
const TOPICS: [&str; 4] = ["t1", "t2", "T1", "unheard"];
/// Wire names.
const TYPES: [&str; 3] = ["test.message", "test.timeout", "test.reminder"];
/// Groups whose shards are leased.
const GROUPS: [&str; 3] = ["shop", "billing", "queue:q1"];

/// `endpoint/saga`.
fn kind(endpoint: &str, saga: &str) -> String {
    format!("{endpoint}/{saga}")
}

/// The nth node of a group: the same in every run.
fn node(group: usize, n: u64) -> NodeId {
    NodeId(Uuid::from_u128((group as u128 + 1) << 64 | u128::from(n) | 0x7000 << 64 | 0x8 << 60))
}
