//! The queue tables of a database as a transport.
//!
//! A queue's rows are divided into shards, and each shard is read by the node that holds its lease. The owner reads ahead
//! by cursor without writing anything; the delete of the row, alone or as the gate of a commit, is the only write per
//! message. What a lost lease lets through is caught by that gate.
//!
//! - `desk`: which rows are read ahead, handed out, paused: pure bookkeeping
//! - `handing`: its other half, handing out and settling
//! - `tenure`: one shard while it is held
//! - `pump`: the task that reads ahead
//! - `receiver`: the port's face
//! - `deletes`: settled rows, removed in batches
//! - `decode`: a row becomes a delivery

mod decode;
mod deletes;
mod desk;
mod handing;
#[cfg(test)]
mod model;
mod pump;
mod receiver;
mod tenure;
mod transport;

pub use transport::{SqlOptions, SqlTransport};
