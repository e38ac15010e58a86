//! Folding a batch of units for the SQL stores: a pure function of the units.
//!
//! A SQL store writes a batch in a few statements over many rows. The fold says what these rows are: the writes of one saga
//! become one [`Chain`], and a unit's timers, aliases and parked messages take later units of the batch into account. The
//! memory store applies unit by unit, and is what this is compared with.

mod batch;
mod chain;
mod rows;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "postgres"))]
pub(crate) use batch::Broken;
pub(crate) use batch::{FoldedBatch, fold};
pub(crate) use chain::{Chain, End, LiveRow, Start, apply_write};
pub(crate) use rows::{DeadLetterRow, shard_of_queued, shard_of_row};
#[cfg(feature = "postgres")]
pub(crate) use rows::{FoldedSend, ParkedRow};
