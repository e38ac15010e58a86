//! The queue tables of a database as a transport.
//!
//! A queue's rows are divided into shards, and each shard is read by the node that holds its lease. The owner reads ahead
//! by cursor without writing anything; the delete of the row, alone or as the gate of a commit, is the only write per
//! message. What a lost lease lets through is caught by that gate.
//!
//! - `read_ahead`: the rows that are read ahead: bookkeeping without I/O
//! - `in_flight`: its other half, handing out and settling
//! - `shard_lease`: one shard while it is held
//! - `token`: how a token names a row and its shard lease
//! - `prefetcher`: the task that reads ahead
//! - `receiver`: the receiving end of the port; `shared` is its state
//! - `batched_deletes`: settled rows, removed in batches
//! - `decode`: a row becomes a delivery
//! - `transport`, `options`: the sending end, and how both work

mod batched_deletes;
mod decode;
mod in_flight;
#[cfg(test)]
mod model;
mod options;
mod prefetcher;
mod read_ahead;
mod receiver;
mod shard_lease;
mod shared;
mod token;
mod transport;

pub use options::SqlOptions;
pub use transport::SqlTransport;
