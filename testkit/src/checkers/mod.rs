//! Judges of a run: pure functions from what was done and what was found to a verdict.
//!
//! They share no code with sagabus and use none of its types: ids are text, times are microseconds. All of them read
//! their rows from JSON lines ([`lines`]), and count everything before they judge; an input that proves nothing is
//! [`Verdict::Vacuous`], never a pass. Collect the rows after the run has drained.

mod exactly_once;
pub mod lines;
mod order;
mod orders;
mod report;
mod timers;

pub use exactly_once::{Dead, Effect, Sent, SentOutcome, check_exactly_once};
pub use order::{Handled, Produced, check_order_per_key};
pub use orders::{LedgerRow, OrderRow, check_orders, check_placed_orders};
pub use report::{Report, Verdict};
pub use timers::{Fired, Requested, check_timers};
